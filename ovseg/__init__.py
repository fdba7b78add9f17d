"""ovseg: open-vocabulary dense prediction. Give it a picture and any words, it returns a segmentation.

import ovseg

model = ovseg.load("naclip")
model.set_classes(["cat", "sofa", "floor"])
result = model("photo.jpg")
result.save("out")
"""

from ovseg.compat.config_scope import announce
from ovseg.compat.mmcv_ops import install_mmcv_ops

__version__ = "0.1.0"
__all__ = ["Background", "Detections", "ImageError", "Protocol", "Result", "Vocabulary"]
__all__ += ["list_methods", "load", "load_detector"]

announce()
install_mmcv_ops()  # must come before anybody imports mmseg or mmdet; costs nothing until an op is used

_HOMES = {
    "Background": "ovseg.text.vocabulary",
    "Detections": "ovseg.results.detections",
    "ImageError": "ovseg.pictures.pixels",
    "Protocol": "ovseg.predict.protocol",
    "Result": "ovseg.results.result",
    "Vocabulary": "ovseg.text.vocabulary",
    "list_methods": "ovseg.apis",
    "load": "ovseg.apis",
    "load_detector": "ovseg.apis",
}


def __getattr__(name: str):
    """Public names are imported on first use, so that ``import ovseg`` and ``ovseg --help`` stay quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ovseg' has no attribute {name!r}; it has {', '.join(__all__)}.")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
