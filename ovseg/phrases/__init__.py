"""Phrase localization: a heat map of a phrase over regions, and the box that contains the heat."""

from .box_search import ScoredBox, box_objective, search_box
from .heatmap import heat_map
from .phrase_search import PhraseMatch, PhraseSearch, RegionFeatures

__all__ = ["ScoredBox", "PhraseSearch", "PhraseMatch", "RegionFeatures", "box_objective", "heat_map", "search_box"]
