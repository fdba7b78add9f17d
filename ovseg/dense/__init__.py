"""Tokens → dense features in the joint space: one paper, one short file."""

from .clearclip import ClearCLIP
from .family import LastBlock
from .features import DenseFeatures
from .maskclip import MaskCLIP
from .naclip import NACLIP
from .sclip import SCLIP
from .vanilla import Vanilla

__all__ = ["SCLIP", "NACLIP", "ClearCLIP", "DenseFeatures", "LastBlock", "MaskCLIP", "Vanilla"]
