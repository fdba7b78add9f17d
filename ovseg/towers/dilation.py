"""Finer maps from a network of timm: its last strides become dilations, so that every filter sees what it saw before.

An output at a position that the strided network has is the same number, borders included.
"""

from collections.abc import Mapping

import timm
from torch import nn

OUTPUT_STRIDE = "output_stride"
STRIDES = (8, 16, 32)


def dilated(visual: nn.Module, vision: Mapping, embed_dim: int, stride: int) -> nn.Module:
    """Give an open_clip ``TimmModel`` a trunk of another output stride, with the trained weights it has.

    Args:
        visual: it is changed in place.
        vision: its ``vision_cfg``.
        embed_dim: E.
        stride: pixels between the positions of the last map, one of ``STRIDES``.

    Raises:
        ValueError: another stride, or a network that timm cannot dilate.
    """
    name = vision.get("timm_model_name")
    if name is None or stride not in STRIDES:
        raise ValueError(
            f"output_stride={stride}: strides of convolutional networks of timm can be {', '.join(map(str, STRIDES))}"
            f"; this is {name or 'none'}."
        )
    pool = {"global_pool": vision["timm_pool"]} if vision.get("timm_pool") else {}
    classes = 0 if vision.get("timm_proj", "linear") else embed_dim
    try:
        trunk = timm.create_model(name, pretrained=False, num_classes=classes, output_stride=stride, **pool)
    except (TypeError, AssertionError) as error:
        raise ValueError(f"{name} cannot be dilated to output_stride={stride}: {str(error)[:120]}.") from error
    trunk.load_state_dict(visual.trunk.state_dict())
    visual.trunk = trunk
    return visual
