"""Maps of windows → one map of the picture, on the grid of its patches."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .class_maps import ImageFeatures


def stitch(encoded: ImageFeatures, views: Sequence[Tensor]) -> Tensor:
    """One map of the resized picture from those of its windows: (C, h, w), the mean where windows overlap.

    Args:
        encoded: the windows' places.
        views: maps (n, C, h', w') of the windows in their batches, and that of the whole view where there is one, which
            counts as much as all windows together.
    """
    first, (height, width) = views[0], encoded.resized
    left, top, right, bottom = encoded.parts[0].padding
    y0, x0, y1, x1 = encoded.boxes[0]
    across, down = first.shape[3] / (x1 - x0 + left + right), first.shape[2] / (y1 - y0 + top + bottom)
    rows, columns = max(1, round(height * down)), max(1, round(width * across))
    ys = (torch.arange(rows, device=first.device) + 0.5) * (height / rows)
    xs = (torch.arange(columns, device=first.device) + 0.5) * (width / columns)
    total, count = first.new_zeros(first.shape[1], rows, columns), first.new_zeros(rows, columns)
    boxes = iter(encoded.boxes)
    for part in views[: len(encoded.parts)]:
        for window in part:
            y0, x0, y1, x1 = next(boxes)
            r, c = _between(ys, y0, y1), _between(xs, x0, x1)
            total[:, r, c] += _sample(window, (ys[r] - y0 + top) * down, (xs[c] - x0 + left) * across)
            count[r, c] += 1
    mean = total / count.clamp(min=1)
    if encoded.whole is None:
        return mean
    whole = views[-1][0]
    h, w = whole.shape[1:]
    return (mean + _sample(whole, ys * (h / height), xs * (w / width))) / 2


def _between(positions: Tensor, low: int, high: int) -> slice:
    return slice(int((positions < low).sum()), int((positions < high).sum()))


def _sample(maps: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Bilinear values (C, len(ys), len(xs)) of maps (C, h, w) at places in cells, whose edges are 0 and h or w."""
    h, w = maps.shape[1:]
    y, x = torch.meshgrid(2 * ys / h - 1, 2 * xs / w - 1, indexing="ij")
    grid = torch.stack([x, y], -1)[None].to(maps.dtype)
    return F.grid_sample(maps[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
