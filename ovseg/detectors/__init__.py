"""Models of ovseg that predict boxes."""

from ovseg.compat.mmengine_weights import read_as_data

from .clipself import CLIPSelfTraining
from .denseclip import DenseCLIPMaskRCNN, DenseCLIPRetinaNet
from .edadet import EdaDet
from .frozen_tower import FrozenTower
from .fvit import FViT
from .fvit_head import FViTBBoxHead, FViTRoIHead
from .open_vocab import BoxClassifier, OpenVocabDetector
from .phrase_localizer import PhraseLocalizer
from .proposals import FrozenRPN, GivenBoxes, OwnRPN, RandomBoxes
from .regionclip import RegionCLIP
from .regionclip_head import RegionCLIPBBoxHead, RegionCLIPRoIHead
from .regionclip_pretraining import RegionCLIPPretraining
from .text_classifier import OpenVocabDetHead, TextLayer, set_classes

__all__ = [
    "BoxClassifier",
    "CLIPSelfTraining",
    "DenseCLIPMaskRCNN",
    "DenseCLIPRetinaNet",
    "EdaDet",
    "FViT",
    "FViTBBoxHead",
    "FViTRoIHead",
    "FrozenRPN",
    "FrozenTower",
    "GivenBoxes",
    "OpenVocabDetHead",
    "OpenVocabDetector",
    "OwnRPN",
    "PhraseLocalizer",
    "RandomBoxes",
    "RegionCLIP",
    "RegionCLIPBBoxHead",
    "RegionCLIPPretraining",
    "RegionCLIPRoIHead",
    "TextLayer",
    "set_classes",
]

read_as_data()
