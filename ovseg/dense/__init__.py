"""Tokens → dense features in the joint space: one paper, one short file.

Every module here is imported when somebody first asks for a method; what it registers is also an attribute of this
package, so a new method is listed nowhere: ``ovseg.dense.NACLIP``.
"""

from ovseg.registry import DENSE, PROXIES, registered_in

from .base import DenseExtractor
from .decomposition import Decomposition, decompose
from .family import LastBlock
from .features import DenseFeatures

__all__ = ["Decomposition", "DenseExtractor", "DenseFeatures", "LastBlock", "decompose"]

__getattr__ = registered_in(__name__, DENSE, PROXIES)
