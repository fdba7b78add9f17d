"""Boxes, masks and objectness that somebody gives: tensors of the right kind, or a sentence."""

from typing import Any

import torch
from torch import Tensor

EXPECTED = {
    "boxes": "(R, 4) numbers, x1, y1, x2, y2 in pixels",
    "masks": "(R, H, W) booleans",
    "objectness": "(R,) numbers from 0 to 1, one for each box or mask",
}
_AXES = {"boxes": 2, "masks": 3, "objectness": 1}


def user_regions(**regions: Any) -> dict[str, Tensor]:
    """Those of ``boxes``, ``masks`` and ``objectness`` that are not None, as tensors.

    Raises:
        ValueError: what is no array of numbers, has another number of axes, or another length than the others.
    """
    tensors = {name: user_tensor(name, value) for name, value in regions.items() if value is not None}
    lengths = {name: len(tensor) for name, tensor in tensors.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"regions belong together one by one, but there are {lengths}; expected as many of each.")
    return tensors


def user_tensor(name: str, value: Any) -> Tensor:
    """One of the ``EXPECTED`` arrays.

    Raises:
        ValueError: it is something else.
    """
    expected = f"expected {EXPECTED[name]}"
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{name} cannot be read from {type(value).__name__} ({reason}); {expected}.") from None
    if tensor.numel() == 0 and tensor.ndim == 1 and name == "boxes":
        tensor = tensor.reshape(0, 4)
    if tensor.ndim != _AXES[name] or tensor.is_complex() or (name == "boxes" and tensor.shape[1] != 4):
        raise ValueError(f"{name} have the shape {tuple(tensor.shape)} of {tensor.dtype}; {expected}.")
    if name == "objectness" and not bool(((tensor >= 0) & (tensor <= 1)).all()):
        raise ValueError(f"objectness lies between 0 and 1, these are not all there; {expected}.")
    return tensor
