"""The exact argmax over any number of prompts by branch and bound: pure torch, independent of any paper."""

from .breakpoints import BreakpointMaps, make_axis, side_by_side
from .confidence import Confidence
from .order import canonical_order, in_former_classes
from .streaming import RunningArgmax, class_chunks, resize_rows, source_rows
from .synonyms import max_over_synonyms
from .winners import winning_prompts

__all__ = [
    "Confidence",
    "BreakpointMaps",
    "RunningArgmax",
    "canonical_order",
    "in_former_classes",
    "max_over_synonyms",
    "class_chunks",
    "make_axis",
    "resize_rows",
    "side_by_side",
    "source_rows",
    "winning_prompts",
]
