"""MMSegmentation models of ovseg."""

from .open_vocab import OpenVocabSegmentor

__all__ = ["OpenVocabSegmentor"]
