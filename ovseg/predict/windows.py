"""Resizing by a protocol's rule, and its sliding windows."""

import cv2
import numpy as np

from .protocol import Protocol

Box = tuple[int, int, int, int]


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


def windows(height: int, width: int, window: int | None, stride: int) -> list[Box]:
    """Windows (top, left, bottom, right) that cover the picture, row by row.

    The last one of a row or column is shifted back to end at the border; a side shorter than the window gets one window
    of that side, without padding.
    """
    if window is None:
        return [(0, 0, height, width)]
    boxes = []
    for row in range(max(height - window + stride - 1, 0) // stride + 1):
        for column in range(max(width - window + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + window, height), min(column * stride + window, width)
            boxes.append((max(bottom - window, 0), max(right - window, 0), bottom, right))
    return boxes
