"""How each kind of golden file is run with ovseg's own modules."""

from . import (
    catseg,
    clipself,
    decomposition,
    denseclip,
    dinoiser,
    ensemble,
    fgclip,
    last_block,
    parallel,
    pixelclip,
    regionclip,
    regions,
)
from .common import CASES

__all__ = [
    "CASES",
    "catseg",
    "clipself",
    "decomposition",
    "denseclip",
    "dinoiser",
    "ensemble",
    "fgclip",
    "last_block",
    "parallel",
    "pixelclip",
    "regionclip",
    "regions",
]
