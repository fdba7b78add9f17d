"""ovseg: open-vocabulary dense prediction. Give it a picture and any words, it returns a segmentation.

import ovseg

model = ovseg.load("naclip")
model.set_classes(["cat", "sofa", "floor"])
result = model("photo.jpg")
result.save("out")
"""

from typing import TYPE_CHECKING

from ovseg.compat.config_scope import announce
from ovseg.compat.mmcv_ops import install_mmcv_ops

if TYPE_CHECKING:
    from ovseg.apis.compare import compare
    from ovseg.apis.explain import explain
    from ovseg.apis.load import load, load_detector
    from ovseg.apis.locate import locate
    from ovseg.apis.methods import list_methods
    from ovseg.pictures.errors import ImageError
    from ovseg.predict.protocol import Protocol
    from ovseg.results.detections import Detections
    from ovseg.results.result import Result
    from ovseg.text.vocabulary import Background, Vocabulary

__version__ = "0.1.0"
__all__ = [
    "Background",
    "Detections",
    "ImageError",
    "Protocol",
    "Result",
    "Vocabulary",
    "compare",
    "explain",
    "list_methods",
    "load",
    "load_detector",
    "locate",
]

announce()
install_mmcv_ops()  # must come before anybody imports mmseg or mmdet; costs nothing until an op is used

_HOMES = {
    "Background": "ovseg.text.vocabulary",
    "Detections": "ovseg.results.detections",
    "ImageError": "ovseg.pictures.errors",
    "Protocol": "ovseg.predict.protocol",
    "Result": "ovseg.results.result",
    "Vocabulary": "ovseg.text.vocabulary",
    "compare": "ovseg.apis.compare",
    "explain": "ovseg.apis.explain",
    "list_methods": "ovseg.apis.methods",
    "load": "ovseg.apis.load",
    "load_detector": "ovseg.apis.load",
    "locate": "ovseg.apis.locate",
}


def __getattr__(name: str):
    """Public names are imported on first use, so that ``import ovseg`` and ``ovseg --help`` stay quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ovseg' has no attribute {name!r}; it has {', '.join(__all__)}.")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
