"""Image → tokens: CLIP-family towers behind one contract (``base.Tower``)."""

from .base import IMAGENET, Preprocess, TokenState, Tower, TowerCard
from .eva import EvaTower
from .resnet import ResNetTower
from .vit import ViTTower
from .weights import load_tower

__all__ = [
    "IMAGENET",
    "EvaTower",
    "Preprocess",
    "ResNetTower",
    "TokenState",
    "Tower",
    "TowerCard",
    "ViTTower",
    "load_tower",
]
