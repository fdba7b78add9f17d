"""What the registries DATASETS and TRANSFORMS import: every dataset and transform of ovseg (this imports mmseg)."""

from . import benchmarks, composed, masks, mini, phrases, seeded

__all__ = ["benchmarks", "composed", "masks", "mini", "phrases", "seeded"]
