"""How each kind of golden file is run with ovseg's own modules."""

from . import last_block
from .common import CASES

__all__ = ["CASES", "last_block"]
