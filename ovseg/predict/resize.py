"""Resizing by a protocol's rule."""

import cv2
import numpy as np

from .protocol import Protocol


def target_size(height: int, width: int, protocol: Protocol) -> tuple[int, int]:
    """Size (H, W) a picture is resized to: MMCV's ``Resize(scale=(max_long_side, short_side), keep_ratio=True)``."""
    if protocol.size is not None:
        return protocol.size
    if protocol.short_side is None:
        return height, width
    factor = min(protocol.max_long_side / max(height, width), protocol.short_side / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def resize(image: np.ndarray, protocol: Protocol) -> np.ndarray:
    """uint8 RGB (H, W, 3) → uint8 RGB of the protocol's size, bilinear without anti-aliasing (as MMCV resizes)."""
    size = target_size(*image.shape[:2], protocol)
    if size == image.shape[:2]:
        return image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
