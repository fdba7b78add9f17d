"""Pictures of a prediction: tinted classes, thin contours, a legend."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .fonts import Text

RGB = tuple[int, int, int]

MAX_SIDE = 2048
"""Longest side of a drawn image, in pixels; larger ones are shrunk first."""

MIN_SIDE = 256
"""Images smaller than this are enlarged by a whole factor when they get a legend, so that both can be seen."""

PAPER, INK, MUTED, HAIRLINE = (255, 255, 255), (31, 35, 40), (110, 118, 129), (216, 222, 228)


@dataclass(frozen=True)
class LegendEntry:
    """A line of the legend. ``color`` is None for what is drawn untinted: its swatch is hollow."""

    name: str
    color: RGB | None
    fraction: float


def draw_overlay(
    image: np.ndarray | Image.Image | None,
    labels: np.ndarray,
    names: Sequence[str],
    colors: Sequence[RGB],
    alpha: float = 0.55,
    legend: bool = True,
    max_legend: int = 20,
    untinted: Collection[int] = (),
    outside: float = 0.0,
) -> Image.Image:
    """A photo under its classes.

    Args:
        image: (H, W, 3) uint8 RGB or a PIL image of that size; None draws flat colors.
        labels: (H, W) integers; an id that is no index of ``names`` counts as unlabeled and stays untinted.
        names: a name per class, of any characters.
        colors: (r, g, b) in 0..255 per class.
        alpha: strength of the tint, from 0 (only contours) to 1 (flat colors).
        legend: add a panel with the classes that are present and their share of the image, largest first; at the
            right, or below when the image is too wide or too low for that.
        max_legend: longest legend; the smaller classes are summed up in its last line.
        untinted: ids that are named in the legend but not tinted, such as a background.
        outside: share of the pixels, in [0, 1], that hold no data; they are unlabeled, and the legend is about the
            others.

    Returns:
        An RGB image: the photo in its own size without legend; larger by the legend otherwise. Photos with a side above
        ``MAX_SIDE`` are shrunk to it, photos below ``MIN_SIDE`` are enlarged by a whole factor if there is a legend.

    Raises:
        ValueError: sizes that do not match, colors that are not one per name, alpha outside [0, 1].
    """
    labels = np.asarray(labels)
    pixels = None if image is None else np.asarray(image)
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be (H, W) integers with H, W >= 1, got {labels.dtype} {labels.shape}.")
    if pixels is not None and (pixels.shape != (*labels.shape, 3) or pixels.dtype != np.uint8):
        raise ValueError(
            f"image and labels must show the same pixels: expected uint8 {(*labels.shape, 3)} for labels of shape "
            f"{labels.shape}, got {pixels.dtype} {pixels.shape}."
        )
    if len(names) != len(colors):
        raise ValueError(f"expected one color per name, got {len(names)} names and {len(colors)} colors.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is the strength of the tint, from 0 to 1, got {alpha}.")
    photo = _tint(*_fit(pixels, labels, legend), colors, alpha if image is not None else 1.0, untinted)
    if not legend:
        return photo
    return _with_legend(photo, legend_entries(labels, names, colors, max_legend, untinted, outside))


def legend_entries(
    labels: np.ndarray,
    names: Sequence[str],
    colors: Sequence[RGB],
    max_legend: int = 20,
    untinted: Collection[int] = (),
    outside: float = 0.0,
) -> list[LegendEntry]:
    """What the legend says: the classes present, by falling area; at most ``max_legend`` of them, then one line for the
    rest, then one for the unlabeled pixels."""
    count = count_labels(labels, len(names))
    order = by_area(count)
    keep = order if len(order) <= max_legend else order[: max(max_legend, 0)]
    area = max(1.0, labels.size * (1 - outside))
    unlabeled = (count[-1] - labels.size * outside) / area
    entries = [LegendEntry(names[i], None if i in untinted else _plain(colors[i]), count[i] / area) for i in keep]
    rest = order[len(keep) :]
    if rest:
        entries.append(LegendEntry(f"{len(rest)} more", None, sum(count[i] for i in rest) / area))
    if unlabeled * area >= 0.5:
        entries.append(LegendEntry("unlabeled", None, unlabeled))
    return entries


def count_labels(labels: np.ndarray, classes: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Pixels per class, (classes + 1,) int64, or with (H, W) weights their sum, float64; the last entry stands for all
    ids that are no class."""
    total: np.ndarray = np.zeros(classes + 1, dtype=np.int64 if weights is None else np.float64)
    rows = max(1, 2**22 // max(labels.shape[1], 1))  # bincount works on copies of 8 bytes per pixel: keep them small
    for start in range(0, labels.shape[0], rows):
        ids = labels[start : start + rows].ravel().astype(np.int64)
        ids[(ids < 0) | (ids > classes)] = classes
        part = None if weights is None else weights[start : start + rows].ravel()
        total += np.bincount(ids, part, minlength=classes + 1)
    return total


def _plain(color: RGB) -> RGB:
    """A color in Python's own numbers."""
    red, green, blue = map(int, color)
    return red, green, blue


def by_area(count: np.ndarray) -> list[int]:
    """Ids of the classes that occur in a ``count_labels``, largest first."""
    return [int(i) for i in sorted(np.flatnonzero(count[:-1]), key=lambda i: (-count[i], i))]


def draw_grid(panels: Sequence[tuple[str, Any]], columns: int | None = None) -> Image.Image:
    """Images side by side, each under its title.

    Args:
        panels: (title, image) pairs; an image is PIL or (H, W, 3) uint8.
        columns: images per row; as near to a square as possible by default.

    Returns:
        An RGB image, its longest side at most ``2 * MAX_SIDE``.

    Raises:
        ValueError: no panel, or columns below 1.
    """
    if not panels:
        raise ValueError("a grid needs at least one (title, image) pair, got none.")
    if columns is not None and columns < 1:
        raise ValueError(f"a grid needs at least one column, got {columns}.")
    columns = min(columns or int(np.ceil(np.sqrt(len(panels)))), len(panels))
    rows = -(-len(panels) // columns)
    images = [image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image)) for _, image in panels]
    images = [image.convert("RGB") for image in images]
    images = [_shrink(image, 2 * MAX_SIDE / max(columns, rows)) for image in images]
    widths = [max(96, *(image.width for image in images[i::columns])) for i in range(columns)]
    heights = [max(image.height for image in images[i * columns : (i + 1) * columns]) for i in range(rows)]
    font = _font_size(max(max(image.size) for image in images))
    gap, head = round(0.8 * font), round(2.0 * font)
    size = (sum(widths) + gap * (columns + 1), sum(heights) + rows * (head + gap) + gap // 2)
    grid = Image.new("RGB", size, PAPER)
    canvas = ImageDraw.Draw(grid)
    for n, ((title, _), image) in enumerate(zip(panels, images, strict=True)):
        row, column = divmod(n, columns)
        x = gap + sum(widths[:column]) + gap * column
        y = gap // 2 + sum(heights[:row]) + (head + gap) * row
        Text(str(title), font, widths[column]).draw(canvas, x, y + head / 2, INK)
        grid.paste(image, (x, y + head))
    return _shrink(grid, 2 * MAX_SIDE)


def _shrink(image: Image.Image, side: float) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(s * scale)) for s in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _fit(pixels: np.ndarray | None, labels: np.ndarray, enlarge: bool) -> tuple[np.ndarray | None, np.ndarray]:
    """Image and labels at the size at which they are drawn."""
    side = max(labels.shape)
    if enlarge and side < MIN_SIDE:
        factor = -(-MIN_SIDE // side)
        grown = None if pixels is None else pixels.repeat(factor, 0).repeat(factor, 1)
        return grown, labels.repeat(factor, 0).repeat(factor, 1)
    if side <= MAX_SIDE:
        return pixels, labels
    height, width = (max(1, round(s * MAX_SIDE / side)) for s in labels.shape)
    rows = (np.arange(height) + 0.5) * labels.shape[0] // height
    cols = (np.arange(width) + 0.5) * labels.shape[1] // width
    labels = labels[rows.astype(int)][:, cols.astype(int)]
    if pixels is not None:
        step = max(1, side // (2 * MAX_SIDE))  # thin out first: Pillow would copy the whole gigapixel
        pixels = np.ascontiguousarray(pixels[::step, ::step])
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
    return pixels, labels


def _tint(
    pixels: np.ndarray | None, labels: np.ndarray, colors: Sequence[RGB], alpha: float, untinted: Collection[int]
) -> Image.Image:
    classes = len(colors)
    ids = np.where((labels < 0) | (labels >= classes), classes, labels).astype(np.int64)
    table = np.array([*colors, HAIRLINE], dtype=np.float32).reshape(-1, 3)
    strength = np.full(classes + 1, alpha, dtype=np.float32)
    plain = [*(i for i in untinted if i < classes), classes]
    strength[plain] = 0
    if pixels is None:
        pixels = np.broadcast_to(np.array(HAIRLINE, np.uint8), (*labels.shape, 3))
    weight = strength[ids][..., None]
    color = table[ids]
    photo = pixels.astype(np.float32)
    # Half way to gray under the tint, so that a class has one color on a red car and on a green one.
    gray = photo @ np.array([0.299, 0.587, 0.114], np.float32)
    photo += (0.5 * (weight > 0)) * (gray[..., None] - photo)
    photo += weight * (color - photo)
    line = (_contours(ids) * (ids < classes))[..., None]
    photo += line * (255 - photo)
    return Image.fromarray((photo + 0.5).clip(0, 255).astype(np.uint8))


def _contours(ids: np.ndarray) -> np.ndarray:
    """(H, W) strength in [0, 1] of the white line between classes; fades where borders are so dense that lines would
    cover what they separate."""
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:-1] |= ids[1:] != ids[:-1]
    edge[:, :-1] |= ids[:, 1:] != ids[:, :-1]
    for i in range(round(max(ids.shape) / 800) - 1):  # one pixel up to a side of 1200, three at the largest
        grown, ahead, behind = edge.copy(), slice(1, None), slice(None, -1)
        to, source = (ahead, behind) if i % 2 == 0 else (behind, ahead)
        grown[to] |= edge[source]
        grown[:, to] |= edge[:, source]
        edge = grown
    radius = 4 * max(1, round(max(ids.shape) / 800))
    dense = Image.fromarray(edge.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(radius))
    return edge * (0.85 * np.clip((0.55 - np.asarray(dense) / np.float32(255)) / 0.3, 0, 1))


def _font_size(side: int) -> int:
    return int(np.clip(round(side / 44), 12, 44))


def _with_legend(photo: Image.Image, entries: list[LegendEntry]) -> Image.Image:
    width, height = photo.size
    font = _font_size(max(photo.size))
    small = max(11, round(0.8 * font))
    if width <= 2.2 * height:
        for size in range(font, small - 1, -1):  # a slightly smaller font keeps a long legend beside the photo
            panel = _Panel(entries, size, columns=1, max_width=max(0.42 * max(photo.size), 180))
            if panel.height <= height:
                break
        if panel.height <= height or width < 2 * panel.width:
            canvas = Image.new("RGB", (width + panel.width, max(height, panel.height)), PAPER)
            canvas.paste(photo, (0, 0))
            panel.draw(canvas, width, 0)
            return canvas
    fit = [c for c in range(1, len(entries) + 1) if c * _Panel(entries, font, 1, max(width / 2, 180)).width <= width]
    panel = _Panel(entries, font, max(fit, default=1), width)
    panel.stretch(width)
    canvas = Image.new("RGB", (max(width, panel.width), height + panel.height), PAPER)
    canvas.paste(photo, (0, 0))
    panel.draw(canvas, 0, height)
    return canvas


class _Panel:
    """The laid-out legend: columns of equal width, filled from top to bottom."""

    def __init__(self, entries: list[LegendEntry], size: int, columns: int, max_width: float):
        self.entries, self.size = entries, size
        self.rows = -(-len(entries) // columns)
        self.pitch, self.swatch, self.pad = round(1.65 * size), round(1.0 * size), round(1.0 * size)
        self.shares = [Text(_percent(entry.fraction), size) for entry in entries]
        self.share_width = max((share.width for share in self.shares), default=0)
        fixed = self.swatch + 0.6 * size + size + self.share_width
        room = max((max_width - self.pad) / columns - self.pad - fixed, 3 * size)
        self.names = [Text(entry.name, size, room) for entry in entries]
        self.column = round(fixed + max((name.width for name in self.names), default=0))
        self.width = columns * (self.column + self.pad) + self.pad
        self.height = self.rows * self.pitch + round(1.4 * self.pad)

    def stretch(self, width: int) -> None:
        """Widen the columns to fill a width."""
        columns = -(-len(self.entries) // self.rows)
        self.column = max(self.column, (width - self.pad) // columns - self.pad)
        self.width = max(self.width, width)

    def draw(self, canvas: Image.Image, x: int, y: int) -> None:
        pen = ImageDraw.Draw(canvas)
        for n, (entry, name, share) in enumerate(zip(self.entries, self.names, self.shares, strict=True)):
            left = x + self.pad + n // self.rows * (self.column + self.pad)
            middle = y + 0.7 * self.pad + (n % self.rows + 0.5) * self.pitch
            _draw_swatch(canvas, left, round(middle - self.swatch / 2), self.swatch, entry.color)
            name.draw(pen, left + self.swatch + 0.6 * self.size, middle, INK)
            share.draw(pen, left + self.column - share.width, middle, MUTED)


def _draw_swatch(canvas: Image.Image, x: int, y: int, side: int, color: RGB | None) -> None:
    """A rounded square, filled or hollow; drawn four times as large for smooth corners."""
    mask = Image.new("L", (4 * side, 4 * side))
    pen = ImageDraw.Draw(mask)
    pen.rounded_rectangle((0, 0, 4 * side - 1, 4 * side - 1), radius=side, fill=255)
    if color is None:
        inset = max(4, round(0.35 * side))
        pen.rounded_rectangle(
            (inset, inset, 4 * side - 1 - inset, 4 * side - 1 - inset), radius=max(1, side - inset), fill=0
        )
    canvas.paste(color or MUTED, (x, y), mask.resize((side, side), Image.Resampling.BOX))


def _percent(fraction: float) -> str:
    percent = 100 * fraction
    if percent < 0.1:
        return "<0.1%"
    return f"{percent:.1f}%" if percent < 9.95 else f"{percent:.0f}%"
