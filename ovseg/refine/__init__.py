"""Maps → better maps."""

from .pamr import PAMR

__all__ = ["PAMR"]
