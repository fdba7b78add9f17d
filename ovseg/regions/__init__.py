"""Regions of an image: mask sources and region embeddings.  Mask sources are found by their modules."""

from ovseg.registry import MASKS, registered_in

from .crops import CropReader
from .masked_tokens import MaskedTokens
from .pooling import pool_boxes, pool_masks
from .prompter import Prompter
from .proposals import Proposals, score_regions
from .superpixels import SEGMENT_COUNTS, as_masks, superpixels

__all__ = [
    "SEGMENT_COUNTS",
    "CropReader",
    "MaskedTokens",
    "Prompter",
    "Proposals",
    "as_masks",
    "pool_boxes",
    "pool_masks",
    "score_regions",
    "superpixels",
]

__getattr__ = registered_in(__name__, MASKS)
