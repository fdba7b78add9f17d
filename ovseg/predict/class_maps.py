"""Kept features of one picture, and the maps of words made of them: any words, any band of rows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ovseg.argmax import BreakpointMaps, make_axis, resize_rows, side_by_side, source_rows
from ovseg.dense import DenseFeatures
from ovseg.dense.windows import Box
from ovseg.pictures.images import LoadedImage
from ovseg.score import CosineScore


@dataclass
class ImageFeatures:
    """Kept features of one picture.

    parts    dense features of the windows, in batches of (n, E, h, w)
    boxes    the windows (top, left, bottom, right) in the resized picture, all of one size
    resized  (H', W') of the resized picture
    size     (H, W) of the picture itself
    image    (3, H, W) normalized, for refiners that look at colors; None where there are none
    pixels   the picture, for refiners that make masks of it; None where there are none
    whole    dense features (1, E, h, w) of the whole view, where the protocol has one
    source   the picture as it was read; None where only its pixels were given
    """

    parts: list[DenseFeatures]
    boxes: list[Box]
    resized: tuple[int, int]
    size: tuple[int, int]
    image: Tensor | None
    pixels: np.ndarray | None = None
    whole: DenseFeatures | None = None
    source: LoadedImage | None = None

    @property
    def views(self) -> list[DenseFeatures]:
        """The windows in batches and, last, the whole view where there is one."""
        return self.parts if self.whole is None else [*self.parts, self.whole]


class ClassMaps:
    """Maps (C, rows, W) of any range of words and any band of rows, from the kept features of one picture."""

    def __init__(self, encoded: ImageFeatures, text: Tensor, scorer: CosineScore, side: int | None = None):
        self.encoded, self.text, self.scorer, self.side = encoded, text, scorer, side
        if type(scorer).forward is CosineScore.forward:
            self._prepared = [scorer.prepare(view) for view in encoded.views]
        else:  # the scorer looks at all words of a picture at once
            self._scores = [scorer(view, text) for view in encoded.views]
            self._prepared = None

    def patch_scores(self, words: slice) -> list[Tensor]:
        """Scores on the patch grid, one (n, C, h, w) per batch of windows and one of the whole view."""
        if self._prepared is None:
            return [scores[:, words] for scores in self._scores]
        return [self.scorer.score(prepared, self.text[words]) for prepared in self._prepared]

    def breakpoints(self) -> BreakpointMaps:
        """All words by their values at breakpoints, for scores without an activation."""
        encoded, scorer = self.encoded, self.scorer
        channels = encoded.parts[0].features.shape[1]
        by_features = self._prepared is not None and scorer.keeps_features(len(self.text), channels)
        views = self._prepared if by_features else self.patch_scores(slice(None))
        views, whole = (views, None) if encoded.whole is None else (views[:-1], views[-1])
        grid = views[0].shape[2:]
        left, top, right, bottom = encoded.parts[0].padding
        axes = []
        for i, padding in enumerate([(top, bottom), (left, right)]):
            starts = sorted({box[i] for box in encoded.boxes})
            window = encoded.boxes[0][i + 2] - encoded.boxes[0][i]
            seen = None if whole is None else (self.side, whole.shape[i + 2])
            size = (encoded.resized[i], encoded.size[i])
            axes.append(make_axis(starts, window, grid[i], padding, *size, seen, self.text.device))
        patches = side_by_side(torch.cat(views), len({box[0] for box in encoded.boxes}))
        return BreakpointMaps(patches, whole, *axes, self.text if by_features else None)

    def stitched(self, scores: list[Tensor], rows: tuple[int, int]) -> Tensor:
        """Rows [a, b) of the resized picture: the mean over the windows that cover a pixel, (C, b − a, W')."""
        first, last = rows
        total = scores[0].new_zeros(scores[0].shape[1], last - first, self.encoded.resized[1])
        boxes = iter(self.encoded.boxes)
        for part, batch in zip(scores, self.encoded.parts, strict=False):
            left, top, right, bottom = batch.padding
            for window in part:
                y0, x0, y1, x1 = next(boxes)
                a, b = max(first, y0), min(last, y1)
                if a >= b:
                    continue
                padded = (y1 - y0 + top + bottom, x1 - x0 + left + right)
                band = self._active(resize_rows(window[None], padded, (a - y0 + top, b - y0 + top)))[0]
                total[:, a - first : b - first, x0:x1] += band[..., left : padded[1] - right]
        mean = total / self.counts[first:last]
        return mean if self.encoded.whole is None else (mean + self._whole(scores[-1], rows)) / 2

    @cached_property
    def counts(self) -> Tensor:
        """How many windows cover each pixel of the resized picture, (H', W')."""
        counts = torch.zeros(self.encoded.resized, device=self.text.device)
        for top, left, bottom, right in self.encoded.boxes:
            counts[top:bottom, left:right] += 1
        return counts

    def _whole(self, scores: Tensor, rows: tuple[int, int]) -> Tensor:
        """Rows [a, b) of the resized picture from the scores (1, C, h, w) of the whole view."""
        resized, side = self.encoded.resized, self.side
        band = source_rows(side, resized[0], rows)
        maps = self._active(resize_rows(scores, (side, side), band))
        return resize_rows(maps, resized, rows, (band[0], side))[0]

    def _active(self, maps: Tensor) -> Tensor:
        return maps if self.scorer.activation is None else self.scorer.activation(maps)

    def maps(self, words: slice, rows: tuple[int, int]) -> Tensor:
        """Rows [a, b) of the picture itself, (C, b − a, W)."""
        resized, size = self.encoded.resized, self.encoded.size
        if resized == size:
            return self.stitched(self.patch_scores(words), rows)
        band = source_rows(resized[0], size[0], rows)
        stitched = self.stitched(self.patch_scores(words), band)
        return resize_rows(stitched[None], size, rows, (band[0], resized[0]))[0]
