"""What the registries DATASETS and TRANSFORMS import: every dataset and transform of ovseg (this imports mmseg)."""

from . import (
    composed,
    detection,
    detection_benchmarks,
    masks,
    mini,
    phrases,
    scene_captions,
    seeded,
    segmentation_benchmarks,
)

__all__ = [
    "segmentation_benchmarks",
    "composed",
    "detection",
    "detection_benchmarks",
    "masks",
    "mini",
    "phrases",
    "scene_captions",
    "seeded",
]
