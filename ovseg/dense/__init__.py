"""Tokens → dense features in the joint space: one paper, one short file."""

from .base import DenseExtractor
from .catseg import CATSeg
from .clearclip import ClearCLIP
from .clip_dinoiser import CLIPDINOiser
from .clip_surgery import CLIPSurgery
from .clipself import CLIPSelf
from .cliptrase import CLIPtrase
from .corrclip import CorrCLIP
from .decomposition import ClipPRS, Decomposition, decompose
from .ensemble import Ensemble
from .family import LastBlock
from .features import DenseFeatures
from .gem import GEM
from .maskclip import MaskCLIP
from .naclip import NACLIP
from .pixelclip import PixelCLIP
from .proxies import TimmProxy, TimmValues, TowerProxy
from .proxyclip import ProxyCLIP
from .resclip import ResCLIP
from .sclip import SCLIP
from .trident import Trident
from .vanilla import Vanilla

__all__ = [
    "CATSeg",
    "GEM",
    "CLIPDINOiser",
    "CLIPSelf",
    "CLIPSurgery",
    "CLIPtrase",
    "ClipPRS",
    "Decomposition",
    "DenseExtractor",
    "Ensemble",
    "CorrCLIP",
    "ProxyCLIP",
    "Trident",
    "ResCLIP",
    "PixelCLIP",
    "TimmProxy",
    "TimmValues",
    "TowerProxy",
    "SCLIP",
    "NACLIP",
    "ClearCLIP",
    "DenseFeatures",
    "LastBlock",
    "MaskCLIP",
    "Vanilla",
    "decompose",
]
