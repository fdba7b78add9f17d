"""Regions of a picture: their embeddings, a heat map of a phrase over them, and the box that holds the heat."""

from .box_search import FoundBox, box_objective, search_box
from .crops import CropReader
from .heatmap import heat_map
from .masked_tokens import MaskedTokens
from .phrase_search import PhraseSearch, Place
from .pooling import pool_boxes, pool_masks
from .prompter import Prompter
from .proposals import Proposals, score_regions
from .sources import SamMasks, Superpixels
from .superpixels import SEGMENT_COUNTS, as_masks, superpixels

__all__ = [
    "SEGMENT_COUNTS",
    "CropReader",
    "FoundBox",
    "MaskedTokens",
    "PhraseSearch",
    "Place",
    "Prompter",
    "Proposals",
    "SamMasks",
    "Superpixels",
    "as_masks",
    "box_objective",
    "heat_map",
    "pool_boxes",
    "pool_masks",
    "score_regions",
    "search_box",
    "superpixels",
]
