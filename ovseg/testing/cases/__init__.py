"""How each kind of golden file is run with ovseg's own modules."""

from . import decomposition, last_block, parallel, regions
from .common import CASES

__all__ = ["CASES", "decomposition", "last_block", "parallel", "regions"]
