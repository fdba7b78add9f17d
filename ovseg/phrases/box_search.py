"""Exhaustive search for the box that contains the heat, as in Adapting CLIP (arXiv 2204.03647).

    maximize over boxes   Σ heat inside / Σ heat − α · area / (H·W)

Boxes are inclusive integer pixels (x1, y1, x2, y2) with x2 > x1 and y2 > y1.  The search first tries all boxes of the
map downsampled to 1/8 (bilinear), then all boxes whose corners lie within ±8 pixels of the best one, scaled up.  Ties
go to the first box in lexicographic order of (x1, y1, x2, y2).
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

Range = tuple[int, int]


class ScoredBox(NamedTuple):
    """A box in inclusive integer pixels of its heat map, and its objective."""

    x1: int
    y1: int
    x2: int
    y2: int
    objective: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self[:4]


def search_box(heat: np.ndarray, alpha: float = 0.8, downsample: int = 8) -> ScoredBox:
    """The best box of a heat map.

    The run time grows with the squares of the numbers of downsampled rows and columns; it is meant for maps of a few
    hundred pixels per side.

    Args:
        heat: (H, W) finite and non-negative, at least two pixels per side.  For a map of zeros the whole map is
            returned, with objective 1 − α.
        alpha: weight of the area; larger values give tighter boxes.  0.75 to 0.9 in the paper.
        downsample: factor of the coarse search, and range in pixels of the fine one.  A side that would become shorter
            than two cells is not downsampled.

    Raises:
        ValueError: an invalid map, an alpha that is not finite, or a factor below one.
    """
    heat = _checked(heat, alpha)
    if downsample < 1:
        raise ValueError(f"downsample must be an integer of at least 1, got {downsample}.")
    height, width = heat.shape
    if not heat.any():
        return ScoredBox(0, 0, width - 1, height - 1, 1.0 - alpha)
    factors = [downsample if side // downsample >= 2 else 1 for side in heat.shape]
    shape = tuple(side // factor for side, factor in zip(heat.shape, factors, strict=True))
    sampled = F.interpolate(torch.from_numpy(heat)[None, None], shape, mode="bilinear", align_corners=False)[0, 0]
    coarse: np.ndarray = sampled.numpy()
    if not coarse.any():  # the heat is so sparse that every sample missed it: search at full resolution
        factors, coarse = [1, 1], heat
    coarse_best = _best(coarse, alpha, [(0, side - 1) for side in coarse.shape[::-1] * 2])
    ranges = []
    for value, factor, side in zip(coarse_best.box, factors[::-1] * 2, (width, height) * 2, strict=True):
        ranges.append((max(0, value * factor - downsample), min(value * factor + downsample, side - 1)))
    return _best(heat, alpha, ranges)


def box_objective(heat: np.ndarray, boxes: np.ndarray, alpha: float = 0.8) -> np.ndarray:
    """The objective of given boxes.

    Args:
        heat: (H, W) as for ``search_box``; in a map of zeros all pixels count equally.
        boxes: (N, 4) integers, inclusive.

    Returns:
        (N,) float64.

    Raises:
        ValueError: boxes outside the map, or with x2 < x1 or y2 < y1.
    """
    heat, boxes = _checked(heat, alpha), np.asarray(boxes)
    height, width = heat.shape
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "iu":
        raise ValueError(f"boxes must be integers (N, 4): x1, y1, x2, y2, inclusive; got {boxes.dtype} {boxes.shape}.")
    x1, y1, x2, y2 = boxes.astype(np.int64).T
    if ((x1 < 0) | (y1 < 0) | (x2 < x1) | (y2 < y1) | (x2 >= width) | (y2 >= height)).any():
        raise ValueError(f"boxes must lie inside the {width} x {height} map, with x2 >= x1 and y2 >= y1.")
    sums = _summed(heat if heat.any() else np.ones_like(heat))
    inside = sums[y2 + 1, x2 + 1] - sums[y2 + 1, x1] - sums[y1, x2 + 1] + sums[y1, x1]
    return inside / sums[-1, -1] - alpha * ((x2 - x1 + 1) * (y2 - y1 + 1)) / heat.size


def _best(heat: np.ndarray, alpha: float, ranges: list[Range]) -> ScoredBox:
    """The best box whose corners x1, y1, x2, y2 lie in inclusive ranges."""
    (x1_low, x1_high), *others = ranges
    y1, x2, y2 = (np.arange(low, high + 1) for low, high in others)
    sums = _summed(heat)
    total, weight = sums[-1, -1], alpha / heat.size
    strips = sums[y2 + 1][None] - sums[y1][:, None]  # heat of rows y1 … y2, summed along x: (y1, y2, W + 1)
    strips = np.ascontiguousarray(strips.transpose(0, 2, 1))  # (y1, W + 1, y2)
    rows = (y2[None] - y1[:, None] + 1)[:, None]  # (y1, 1, y2)
    upside_down = rows < 2
    best = ScoredBox(x1_low, int(y1[0]), int(x2[-1]), int(y2[-1]), -np.inf)
    for x1 in range(x1_low, x1_high + 1):
        right = x2[x2 > x1]
        if not len(right):
            break
        area = rows * (right - x1 + 1)[None, :, None]  # divided last, so that equal boxes have equal objectives
        value = (strips[:, right + 1] - strips[:, x1, None]) / total - weight * area
        value = np.where(upside_down, -np.inf, value)
        index = int(value.argmax())
        if value.flat[index] > best.objective:
            i, j, k = np.unravel_index(index, value.shape)
            best = ScoredBox(x1, int(y1[i]), int(right[j]), int(y2[k]), float(value.flat[index]))
    return best


def _summed(heat: np.ndarray) -> np.ndarray:
    """Summed-area table (H + 1, W + 1) with a leading row and column of zeros."""
    return np.pad(heat.cumsum(0).cumsum(1), ((1, 0), (1, 0)))


def _checked(heat: np.ndarray, alpha: float) -> np.ndarray:
    heat = np.ascontiguousarray(heat, dtype=np.float64)
    if heat.ndim != 2 or min(heat.shape) < 2 or not np.isfinite(heat).all() or heat.min() < 0:
        raise ValueError(
            f"a heat map must be (H, W) with at least 2 x 2 finite, non-negative values, got shape {heat.shape}."
        )
    if not np.isfinite(alpha):
        raise ValueError(f"alpha, the weight of the area, must be a finite number such as 0.8, got {alpha}.")
    return heat
