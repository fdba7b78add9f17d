"""Image → tokens: CLIP-family towers behind one contract (``base.Tower``), one file a family, found by its module."""

from .base import IMAGENET, Preprocess, TokenState, Tower, TowerCard
from .capabilities import CAPABILITIES, missing, require
from .weights import load_tower

__all__ = [
    "CAPABILITIES",
    "IMAGENET",
    "Preprocess",
    "TokenState",
    "Tower",
    "TowerCard",
    "load_tower",
    "missing",
    "require",
]
