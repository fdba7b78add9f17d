"""MMSegmentation models of ovseg."""

from .catseg import CATSegTraining
from .clip_backbone import CLIPBackbone
from .dense_tuning import DenseTuning
from .denseclip import DenseCLIP
from .dinoiser_training import DinoiserTraining
from .maskclip_plus import MaskCLIPPlus
from .maskclip_plus_head import ASPPV2Head, MaskCLIPPlusHead
from .open_vocab import OpenVocabSegmentor
from .pixelclip import PixelCLIPTraining
from .side_by_side import SideBySide
from .text_head import OpenVocabHead, TextClassifier, set_classes

__all__ = [
    "ASPPV2Head",
    "MaskCLIPPlus",
    "MaskCLIPPlusHead",
    "CATSegTraining",
    "CLIPBackbone",
    "DenseCLIP",
    "DenseTuning",
    "DinoiserTraining",
    "OpenVocabSegmentor",
    "OpenVocabHead",
    "PixelCLIPTraining",
    "SideBySide",
    "TextClassifier",
    "set_classes",
]
