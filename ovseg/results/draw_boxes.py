"""Boxes with their labels on a picture, and the masks inside them."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from ovseg.text.palette import RGB, palette

from .draw import MAX_SIDE
from .fonts import Text

INK, PAPER = (20, 22, 26), (255, 255, 255)
SMALL = 512  # pictures with a longer side below this are enlarged, so that labels can be read


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray | Sequence[Sequence[float]],
    labels: Sequence[str],
    heat: np.ndarray | None = None,
    masks: Iterable[np.ndarray] | None = None,
    colors: Sequence[RGB] | None = None,
) -> Image.Image:
    """Boxes on a picture, each under a tab with its label.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (x1, y1, x2, y2) in pixels of the picture.
        labels: one per box.
        heat: (h, w) in [0, 1] of any size; where it is low the picture is greyed and darkened.
        masks: one (H, W) bool per box, tinted; where they overlap the first one shows.
        colors: (r, g, b) per box; all different unless given.

    Returns:
        RGB; the picture's size, with a longer side above ``MAX_SIDE`` shrunk to it and one below ``SMALL`` enlarged by
        a whole factor.

    Raises:
        ValueError: not one label per box.
    """
    if len(boxes) != len(labels) or (colors is not None and len(colors) != len(boxes)):
        raise ValueError(
            f"expected one label per box, and one color where there are colors; got {len(boxes)} boxes, "
            f"{len(labels)} labels, {'no' if colors is None else len(colors)} colors."
        )
    colors = palette(max(len(boxes), 1))[: len(boxes)] if colors is None else colors
    height, width = image.shape[:2]
    side = max(height, width)
    scale = -(-SMALL // side) if side < SMALL else min(1.0, MAX_SIDE / side)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    step = max(1, side // (2 * MAX_SIDE))  # thin out first: Pillow would copy the whole gigapixel
    picture = Image.fromarray(np.ascontiguousarray(image[::step, ::step])).resize(size, Image.Resampling.BICUBIC)
    if heat is not None:
        picture = _dimmed(picture, heat)
    if masks is not None:
        picture = _tinted(picture, masks, colors)
    pen, line = ImageDraw.Draw(picture), max(3, round(max(size) / 200))
    font = int(np.clip(round(max(size) / 36), 13, 40))
    taken: list[tuple[int, int, int]] = []
    for box, color in zip(boxes, colors, strict=True):
        corners = _corners(box, size, scale)
        pen.rectangle(corners, outline=INK, width=line + 2)
        pen.rectangle([corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1], outline=color, width=line)
    for box, label, color in zip(boxes, labels, colors, strict=True):
        _tab(pen, _corners(box, size, scale), label, color, font, size, taken)
    return picture


def _corners(box: Sequence[float], size: tuple[int, int], scale: float) -> tuple[int, int, int, int]:
    """First and last drawn pixel of a box, at least four pixels apart."""
    x1, y1, x2, y2 = (round(float(v) * scale) for v in box)
    x1, y1 = min(max(x1, 0), max(size[0] - 5, 0)), min(max(y1, 0), max(size[1] - 5, 0))
    return x1, y1, max(min(x2, size[0]) - 1, x1 + 4), max(min(y2, size[1]) - 1, y1 + 4)


def _dimmed(picture: Image.Image, heat: np.ndarray) -> Image.Image:
    heat = cv2.resize(heat.astype(np.float32), picture.size, interpolation=cv2.INTER_LINEAR)[..., None]
    photo = np.asarray(picture).astype(np.float32)
    gray = (photo @ np.array([0.299, 0.587, 0.114], np.float32))[..., None] * 0.45
    return Image.fromarray((gray + np.sqrt(heat) * (photo - gray)).round().clip(0, 255).astype(np.uint8))


def _tinted(picture: Image.Image, masks: Iterable[np.ndarray], colors: Sequence[RGB]) -> Image.Image:
    """Masks in their colors, half transparent, on the drawn picture."""
    pixels = np.asarray(picture).astype(np.float32)
    free = np.ones(pixels.shape[:2], bool)
    for mask, color in zip(masks, colors, strict=True):
        inside = free & cv2.resize(mask.astype(np.uint8), picture.size, interpolation=cv2.INTER_NEAREST).astype(bool)
        free &= ~inside
        pixels[inside] += 0.45 * (np.array(color, np.float32) - pixels[inside])
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _tab(pen, corners, label: str, color, font: int, size: tuple[int, int], taken: list) -> None:
    """The label above its box; inside at the top where there is no room; moved down while another tab is there."""
    text = Text(label, font, max(size[0] - font, font))
    width, height = text.width + font, round(1.5 * font)
    x = max(0, min(corners[0], size[0] - width))
    y = corners[1] - height if corners[1] >= height else corners[1]
    while any(abs(y - other_y) < height and x < other_x + w and other_x < x + width for other_x, other_y, w in taken):
        y += height
    y = min(y, max(size[1] - height, 0))
    taken.append((x, y, width))
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    light = float(np.dot(color, (0.299, 0.587, 0.114))) < 140
    text.draw(pen, x + font / 2, y + height / 2, PAPER if light else INK)
