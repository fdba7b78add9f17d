"""MMSegmentation models of ovseg."""

from .open_vocab import OpenVocabSegmentor
from .side_by_side import SideBySide

__all__ = ["OpenVocabSegmentor", "SideBySide"]
