"""From patches to pixels as one linear map, represented by the few rows and columns between which it is linear.

Enlarging the maps of windows, averaging windows that overlap, and resizing to the image act on rows and columns
separately, because windows lie on a grid:

    m_c(i, j) = Σ_ab P_ia Q_jb s_c(a, b),    P, Q ≥ 0,  Σ_a P_ia = Σ_b Q_jb = 1

a, b index the patches of all windows along an axis.  Along the resized image, the rows of P change linearly with their
position except at *breakpoints*: the pixels next to the center of a patch (of any window) and next to the border of a
window. Resizing to the image interpolates between whole pixels of the resized one, and breakpoints are such pixels.  So
P = L·K, where K holds the rows of P at the breakpoints and L has two weights per row, and in a cell between four
breakpoints

    m_c = bilinear interpolation of the breakpoint values v_c = K s_c K'ᵀ                             (exact)

If an image has fewer rows than there are breakpoints, its rows serve as the breakpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from math import isqrt

import torch
from torch import Tensor

Span = tuple[int, int]
SPARSE = 1.4  # breakpoints per patch above which scoring patches and enlarging the scores is cheaper


@dataclass
class Axis:
    """One axis of the map.

    weights  (breakpoints, windows·patches), K
    patches  number of patches of a window along the axis
    whole    (breakpoints, patches of the whole view), or None
    low      (n,) the breakpoint at or before each of the n rows of the image
    part     (n,) weight of the next breakpoint
    step     1, or 0 if every row of the image is a breakpoint
    """

    weights: Tensor
    patches: int
    whole: Tensor | None
    low: Tensor
    part: Tensor
    step: int

    def __post_init__(self):
        self.breakpoints, self.size = len(self.weights), len(self.low)
        self.next = (torch.arange(self.breakpoints, device=self.low.device) + self.step).clamp(max=self.breakpoints - 1)
        inside = torch.bincount(self.low, minlength=self.breakpoints)
        self.stop = inside.cumsum(0)
        self.start = self.stop - inside

    def seen(self, breakpoints: Span) -> tuple[Tensor, Tensor]:
        """The patches (m,) of all windows that contribute to breakpoints [a, b), and their weights (b − a, m)."""
        band = self.weights[slice(*breakpoints)]
        patches = band.any(0).nonzero()[:, 0]
        return patches, band[:, patches]

    def of_whole(self, breakpoints: Span) -> Tensor:
        """The weights (b − a, patches) of the whole view at breakpoints [a, b).

        Raises:
            ValueError: an axis without a whole view.
        """
        if self.whole is None:
            raise ValueError("this axis has no whole view: make it with make_axis(…, whole=(length, patches)).")
        return self.whole[slice(*breakpoints)]

    def band(self, rows: Span, windows: Span) -> "Axis":
        """The axis restricted to rows [a, b) of the image, which depend only on windows [c, d); no whole view."""
        low = self.low[slice(*rows)]
        first, last = int(low[0]), int(self.next[low[-1]])
        patches = slice(windows[0] * self.patches, windows[1] * self.patches)
        weights = self.weights[first : last + 1, patches]
        return Axis(weights, self.patches, None, low - first, self.part[slice(*rows)], self.step)


def make_axis(
    starts: Sequence[int],
    window: int,
    patches: int,
    padding: Span,
    resized: int,
    size: int,
    whole: Span | None = None,
    device: torch.device | str = "cpu",
) -> Axis:
    """The map along one axis.

    Args:
        starts: first pixel of each window in the resized image.
        window: length of a window in pixels.
        patches: h, patches of a window.
        padding: pixels before and after a window that its patches also cover.
        resized, size: length in pixels of the resized image and of the original image.
        whole: length in pixels to which the whole view is enlarged first, and its number of patches; None without one.
    """
    padded = window + sum(padding)
    positions = [0, resized - 1]
    for start in starts:
        positions += [start - 1, start, start + window - 1, start + window]
        bends = (torch.arange(patches, dtype=torch.float64) + 0.5) * padded / patches - 0.5 + start - padding[0]
        positions += _beside(bends[(bends >= start) & (bends <= start + window - 1)])
    if whole:
        side, count = whole
        bends = (torch.arange(count, dtype=torch.float64) + 0.5) * side / count - 0.5
        bends = torch.tensor(_beside(bends), dtype=torch.float64).clamp(0, side - 1)
        positions += _beside((bends + 0.5) * resized / side - 0.5)
    breakpoints = torch.tensor(sorted({y for y in positions if 0 <= y < resized}), dtype=torch.float64)
    position = ((torch.arange(size, dtype=torch.float64) + 0.5) * resized / size - 0.5).clamp(0, resized - 1)
    step = int(size > len(breakpoints))
    if not step:
        breakpoints, low, part = position, torch.arange(size), torch.zeros(size, dtype=torch.float64)
    else:
        low = (torch.searchsorted(breakpoints, position, right=True) - 1).clamp(0, max(len(breakpoints) - 2, 0))
        ends = breakpoints[(low + 1).clamp(max=len(breakpoints) - 1)]
        part = (position - breakpoints[low]) / (ends - breakpoints[low]).clamp(min=1)

    def between(rows, breakpoints):
        before = breakpoints.floor()
        share = (breakpoints - before)[:, None]
        return ((1 - share) * rows(before) + share * rows((before + 1).clamp(max=resized - 1))).float().to(device)

    tops = torch.tensor(starts, dtype=torch.float64)

    def of_window(start, y):
        covering = torch.searchsorted(tops, y, right=True) - torch.searchsorted(tops, y - window, right=True)
        inside = (y >= start) & (y < start + window)
        return _taps(y - start + padding[0], padded, patches) * (inside / covering)[:, None]

    def of_whole(y):
        return _taps(y, resized, whole[0]) @ _taps(torch.arange(whole[0], dtype=torch.float64), *whole)

    weights = torch.zeros(len(breakpoints), len(starts) * patches, device=device)
    for i, start in enumerate(starts):
        near = ((breakpoints > start - 1) & (breakpoints < start + window)).nonzero()[:, 0]
        block = slice(i * patches, (i + 1) * patches)
        weights[near.to(device), block] = between(partial(of_window, start), breakpoints[near])
    seen = between(of_whole, breakpoints) if whole else None
    return Axis(weights, patches, seen, low.to(device), part.float().to(device), step)


def _beside(positions: Tensor) -> list[int]:
    """The integers next to each position: one if the position is an integer up to rounding, else two."""
    return torch.cat([(positions + 1e-6).floor(), (positions - 1e-6).ceil()]).long().tolist()


def _taps(y: Tensor, length: int, patches: int) -> Tensor:
    """Weights (n, patches) of rows y of the bilinear enlargement of ``patches`` rows to ``length``."""
    u = ((y + 0.5) * patches / length - 0.5).clamp(0, patches - 1)
    low = u.floor().clamp(max=patches - 1)
    at = low.long()[:, None]
    rows = u.new_zeros(len(u), patches).scatter_(1, at, (1 - (u - low))[:, None])
    return rows.scatter_add_(1, (at + 1).clamp(max=patches - 1), (u - low)[:, None])


class BreakpointMaps:
    """Breakpoint values of all prompts, from the maps of windows.

    If the scores are inner products with features (``text`` is not None), no scores are stored: those of a range of
    breakpoints are computed on demand from the patches that contribute, by enlarging either features or scores,
    whichever is cheaper.

    Args:
        patches: (R·h, C·w, D) of all windows, side by side; see ``side_by_side``.
        whole: the map (1, D, h', w') of the whole view, or None.
        rows, columns: the two axes.
        text: (T, D), or None if the D channels are already the scores of T prompts.
    """

    def __init__(self, patches: Tensor, whole: Tensor | None, rows: Axis, columns: Axis, text: Tensor | None):
        self.patches, self.rows, self.columns, self.text = patches, rows, columns, text
        self.whole = None if whole is None else whole[0].permute(1, 2, 0).contiguous()
        self.words = self.patches.shape[2] if text is None else len(text)

    def values(self, rows: Span, columns: Span, out: Tensor | None = None) -> Tensor:
        """v (breakpoints, T) at the breakpoints of a range of rows and a range of columns, in row-major order.

        ``out`` is a flat tensor to write into if it is large enough.
        """
        (y, down), (x, across) = self.rows.seen(rows), self.columns.seen(columns)
        parts = [(self.patches[y[:, None], x], down, across)]
        if self.whole is not None:
            parts = [(patches, down / 2, across) for patches, down, across in parts]
            parts.append((self.whole, self.rows.of_whole(rows) / 2, self.columns.of_whole(columns)))
        breakpoints = len(down) * len(across)
        out = None if out is None or out.numel() < breakpoints * self.words else out[: breakpoints * self.words]
        if self.text is None:
            return reduce(torch.add, (_enlarged(*part) for part in parts)).flatten(0, 1)
        if SPARSE * sum(patches[..., 0].numel() for patches, *_ in parts) < breakpoints:  # fewer patches: score first
            first, *others = ((patches @ self.text.T, down, across) for patches, down, across in parts)
            scores = _enlarged(*first, None if out is None else out.view(len(down), len(across), -1))
            for other in others:
                scores += _enlarged(*other)
            return scores.flatten(0, 1)
        channels = reduce(torch.add, (_enlarged(*part) for part in parts)).flatten(0, 1)
        return torch.mm(channels, self.text.T, out=None if out is None else out.view(breakpoints, -1))

    def of(self, words: Tensor) -> "BreakpointMaps":
        """The maps of some of the prompts."""
        some = object.__new__(BreakpointMaps)
        some.__dict__ |= self.__dict__ | {"words": len(words)}
        if self.text is not None:
            some.text = self.text[words]
        else:
            some.patches = self.patches[..., words]
            some.whole = None if self.whole is None else self.whole[..., words]
        return some

    def tiles(self, memory: int):
        """Ranges of cells, (rows, columns), whose breakpoint values take about ``memory`` bytes; a cell is identified
        by its first breakpoint."""
        most = max(4, memory // (4 * self.words))
        rows = min(
            self.rows.breakpoints, max(1, isqrt(most) - 1)
        )  # nearly square tiles share few breakpoints with others
        columns = min(self.columns.breakpoints, max(1, most // (rows + 1) - 1))
        rows = min(self.rows.breakpoints, max(1, most // (columns + 1) - 1))
        for top in range(0, self.rows.breakpoints, rows):
            for left in range(0, self.columns.breakpoints, columns):
                yield (
                    (top, min(top + rows, self.rows.breakpoints)),
                    (left, min(left + columns, self.columns.breakpoints)),
                )


def side_by_side(windows: Tensor, down: int) -> Tensor:
    """Maps (R·C, D, h, w) of windows, row by row, R = ``down`` → (R·h, C·w, D)."""
    tiles = windows.unflatten(0, (down, -1)).permute(0, 3, 1, 4, 2)
    return tiles.flatten(2, 3).flatten(0, 1).contiguous()


def _enlarged(patches: Tensor, down: Tensor, across: Tensor, out: Tensor | None = None) -> Tensor:
    """Maps (a, b, D) of patches → (rows, columns, D)."""
    rows = (down @ patches.flatten(1)).unflatten(1, patches.shape[1:])
    return torch.bmm(across.expand(len(down), -1, -1), rows, out=out)
