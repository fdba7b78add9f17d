"""The label map of a raster, strip by strip: that of the whole picture, in the memory of a few rows of windows.

A row of pixels is decided once all windows that cover it have been through the tower, and no window goes through it
twice: rows of windows that reach below what is decided are kept for the next strip.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ovseg.argmax import BreakpointMaps, canonical_order, in_former_classes, make_axis
from ovseg.pictures.raster import CHUNK, PER_PIXEL, Raster
from ovseg.score import CosineScore

from .memory import resident
from .pipeline import Pipeline
from .plan import Costs, Grid, Strip, make_plan

PER_LABEL = 128  # bytes of maps per pixel whose label is made, so that a band of labels grows with its maps


class Strips:
    """Labels of one raster for one vocabulary.

    Args:
        pipeline: tower, extractor, scorer and protocol; see ``check_pipeline`` for what it must not have.
        raster: open for reading.
        text: (T, E) unit word embeddings.
        prompt_to_class: class of each word, in non-decreasing order.
        budget: bytes of memory that the process may have.

    Attributes:
        plan: how it will be done.
        invalid: pixels of the last strip that hold no data.

    Raises:
        ValueError: a protocol that needs the whole picture; a budget that is too small.
    """

    @torch.inference_mode()
    def __init__(self, pipeline: Pipeline, raster: Raster, text: Tensor, prompt_to_class, budget: int):
        check_pipeline(pipeline)
        order, self.prompt_to_class, self._former = canonical_order(text, list(prompt_to_class))
        self.pipeline, self.raster, self.text = pipeline, raster, text[order]
        protocol = pipeline.protocol
        self.grid = grid = Grid.of(raster.height, raster.width, protocol.window, protocol.stride)
        black = np.zeros((*grid.window, 3), np.uint8)
        dense = pipeline.features(pipeline.normalized(black)[None])  # what is loaded at first use is in memory then
        left, top, right, bottom = dense.padding
        self.by_features = pipeline.scorer.keeps_features(len(text), dense.features.shape[1])
        self.patches = self._label_values([black])[0]
        (h, w), device = self.patches.shape[:2], text.device
        self.rows = make_axis(grid.tops, grid.window[0], h, (top, bottom), grid.height, grid.height, device=device)
        self.columns = make_axis(grid.lefts, grid.window[1], w, (left, right), grid.width, grid.width, device=device)
        tokens = 1 + dense.features[0, 0].numel()
        del dense
        band = grid.window[0] * grid.width * 3
        costs = Costs(
            resident=resident(),
            pixels=2 * band + raster.cache + PER_PIXEL * min(CHUNK, raster.height * raster.width),
            patches=4 * self.patches.numel(),
            forward=4 * (12 * pipeline.tower.width * tokens + tokens**2 + 9 * black.size),
        )
        batch = min(protocol.window_batch, len(grid.tops) * len(grid.lefts))
        most = max(
            32 * len(text) * self.rows.breakpoints * self.columns.breakpoints, PER_LABEL * grid.height * grid.width
        )
        self.plan = make_plan(grid, costs, budget, batch, min(protocol.memory, most))

    def run(
        self, threshold: float, below: int, unlabeled: int, done: int = 0, report: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """First row and labels (rows, W), uint8 where 255 is ``unlabeled``, else uint16, of strip after strip.

        Args:
            threshold: pixels whose best class has a lower probability get ``below``.
            unlabeled: what pixels get that hold no data, or could not be read.
            done: rows of pixels that are known already, the end of some strip.
            report: called with the number of windows that have been through the tower since.
        """
        grid, kind = self.grid, np.uint8 if unlabeled == 255 else np.uint16
        h, w, channels = self.patches.shape
        shape = grid.held(self.plan.rows) * h, len(grid.lefts) * w, channels
        buffer, band = torch.empty(shape, device=self.text.device), _Band(self.raster)
        first = held = grid.first(done)
        self.invalid = 0
        for strip in grid.strips(self.plan.rows, done):
            for row in range(strip.first, held):  # those that reach below what is decided move to the front
                to, source = (row - strip.first) * h, (row - first) * h
                buffer[to : to + h] = (
                    buffer[source : source + h].clone() if to != source else buffer[source : source + h]
                )
            first = strip.first
            self._fill(buffer, strip, max(held, first), band, report)
            held = strip.stop
            labels = np.empty((strip.bottom - strip.top, grid.width), kind)
            self._decode(labels, buffer[: (held - first) * h], strip, threshold, below)
            for top, left, bottom, right in self.raster.unread:
                labels[max(top - strip.top, 0) : max(bottom - strip.top, 0), left:right] = unlabeled
            invalid = band.invalid(strip.top, strip.bottom)
            labels[invalid] = unlabeled
            self.invalid = int(np.count_nonzero(invalid))
            yield strip.top, labels

    @torch.inference_mode()
    def _fill(self, buffer: Tensor, strip: Strip, fresh: int, band: "_Band", report):
        """Run the windows of the rows from ``fresh`` on and put their values into ``buffer``."""
        (h, w), (height, width) = self.patches.shape[:2], self.grid.window

        def crops():
            for row in range(fresh, strip.stop):
                top = self.grid.tops[row]
                pixels = band.rows(top, top + height)
                for column, left in enumerate(self.grid.lefts):
                    yield row - strip.first, column, pixels[:, left : left + width]

        todo = crops()
        while batch := list(islice(todo, self.plan.batch)):
            fresh_patches = self._label_values([crop for *_, crop in batch])
            for (row, column, _), patches in zip(batch, fresh_patches, strict=True):
                buffer[row * h : (row + 1) * h, column * w : (column + 1) * w] = patches
            if report:
                report(len(batch))

    def _label_values(self, crops: list[np.ndarray]) -> Tensor:
        """What labels are made of, (n, h, w, D): features, or where they take less memory, scores."""
        dense = self.pipeline.features(torch.stack([self.pipeline.normalized(crop) for crop in crops]))
        prepared = self.pipeline.scorer.prepare(dense)
        values = prepared if self.by_features else self.pipeline.scorer.score(prepared, self.text)
        return values.permute(0, 2, 3, 1)

    @torch.inference_mode()
    def _decode(self, labels: np.ndarray, patches: Tensor, strip: Strip, threshold: float, below: int):
        """Write the labels of a strip, a band of rows at a time."""
        step = max(1, self.plan.maps // (PER_LABEL * self.grid.width))
        text = self.text if self.by_features else None
        for top in range(strip.top, strip.bottom, step):
            rows = (top, min(top + step, strip.bottom))
            axis = self.rows.band(rows, (strip.first, strip.stop))
            breakpoints = BreakpointMaps(patches, None, axis, self.columns, text)
            decoded = self.pipeline.bounded(breakpoints, self.prompt_to_class, memory=self.plan.maps)
            part = labels[rows[0] - strip.top : rows[1] - strip.top]
            part[:] = in_former_classes(decoded.labels, self._former).cpu().numpy()
            if threshold > 0:
                part[decoded.below(threshold).cpu().numpy()] = below


class _Band:
    """Rows of a raster that are asked for from top to bottom, with overlaps: each is read once.

    Where rows hold no data is kept, a bit per pixel, until it is asked for.
    """

    def __init__(self, raster: Raster):
        self.raster, self.top = raster, 0
        self.pixels = np.empty((0, raster.width, 3), np.uint8)
        self._bits: dict[int, np.ndarray] = {}  # of each row that holds invalid pixels

    def rows(self, first: int, last: int) -> np.ndarray:
        known = self.top + len(self.pixels)
        if not self.top <= first < known:
            self.pixels = self._read(first, last)
        else:
            self.pixels = np.concatenate([self.pixels[first - self.top :], self._read(known, last)])
        self.top = first
        return self.pixels

    def invalid(self, first: int, last: int) -> np.ndarray:
        """Where the rows [first, last) hold no data, bool (last − first, W); rows above ``last`` are forgotten."""
        invalid = np.zeros((last - first, self.raster.width), bool)
        for row in [row for row in self._bits if row < last]:
            bits = self._bits.pop(row)
            if row >= first:
                invalid[row - first] = np.unpackbits(bits, count=self.raster.width)
        return invalid

    def _read(self, first: int, last: int) -> np.ndarray:
        pixels, invalid = self.raster.read(first, last)
        self._bits |= {first + int(i): np.packbits(invalid[i]) for i in np.flatnonzero(invalid.any(1))}
        return pixels


def check_pipeline(pipeline: Pipeline):
    """Raise ValueError for what cannot be done strip by strip, or not at the raster's own size."""
    protocol, scorer = pipeline.protocol, pipeline.scorer
    names = ", ".join(str(r["type"] if isinstance(r, dict) else r) for r in protocol.refine)
    sized = protocol.size is not None or protocol.short_side is not None
    wrong = {
        "a raster is read at its own size: leave out --short-side (Python: short_side=None, size=None)": sized,
        "it has no window: give one, such as --window 224": protocol.window is None,
        "whole_view looks at the whole picture: whole_view=False": protocol.whole_view,
        "area_threshold counts the pixels of the whole picture: area_threshold=0": protocol.area_threshold > 0,
        f"refiners ({names}) look at whole pictures: --refine none (Python: refine=[])": bool(protocol.refine),
        f"{type(scorer).__name__} scores all words of a window at once: choose another method or scorer": (
            getattr(type(scorer), "forward", None) is not CosineScore.forward or scorer.activation is not None
        ),
    }
    reasons = [what for what, is_so in wrong.items() if is_so]
    if reasons:
        raise ValueError(f"this cannot be done window by window: {'; '.join(reasons)}.")
