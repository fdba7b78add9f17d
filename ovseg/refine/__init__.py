"""Maps → better maps."""

from .base import LabelRefiner, MapRefiner, Picture
from .cluster import ClusterVote
from .crf import MeanFieldCRF
from .guided import GuidedUpsampling
from .mask_vote import MaskVote
from .pamr import PAMR

__all__ = [
    "PAMR",
    "ClusterVote",
    "GuidedUpsampling",
    "LabelRefiner",
    "MapRefiner",
    "MaskVote",
    "MeanFieldCRF",
    "Picture",
]
