"""Refinement of class maps and label maps.  Refiners are found by their modules, as methods in ``ovseg.dense`` are."""

from ovseg.registry import REFINERS, registered_in

from .base import LabelRefiner, MapRefiner, Picture

__all__ = ["LabelRefiner", "MapRefiner", "Picture"]

__getattr__ = registered_in(__name__, REFINERS)
