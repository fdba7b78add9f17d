"""The exact argmax over any number of prompts by branch and bound: pure torch, independent of any paper."""

from .best_word import best_word
from .breakpoints import KnotMaps, make_axis, side_by_side
from .confidence import Confidence
from .streaming import RunningArgmax, class_chunks, resize_rows, source_rows
from .winners import winning_words

__all__ = [
    "Confidence",
    "KnotMaps",
    "RunningArgmax",
    "best_word",
    "class_chunks",
    "make_axis",
    "resize_rows",
    "side_by_side",
    "source_rows",
    "winning_words",
]
