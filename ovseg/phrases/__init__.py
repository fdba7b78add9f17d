"""Phrase localization: a heat map of a phrase over regions, and the box that holds the heat."""

from .box_search import FoundBox, box_objective, search_box
from .heatmap import heat_map
from .phrase_search import PhraseSearch, Place

__all__ = ["FoundBox", "PhraseSearch", "Place", "box_objective", "heat_map", "search_box"]
