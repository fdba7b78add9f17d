"""What the registries DATASETS and TRANSFORMS import: every dataset and transform of ovseg (this imports mmseg)."""

from . import benchmarks, composed, detection, detection_benchmarks, masks, mini, phrases, scene_captions, seeded

__all__ = [
    "benchmarks",
    "composed",
    "detection",
    "detection_benchmarks",
    "masks",
    "mini",
    "phrases",
    "scene_captions",
    "seeded",
]
