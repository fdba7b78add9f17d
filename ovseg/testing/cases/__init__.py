"""How each kind of golden file is run with ovseg's own modules."""

from . import catseg, decomposition, denseclip, dinoiser, last_block, parallel, pixelclip, regions
from .common import CASES

__all__ = [
    "CASES",
    "catseg",
    "decomposition",
    "denseclip",
    "dinoiser",
    "last_block",
    "parallel",
    "pixelclip",
    "regions",
]
