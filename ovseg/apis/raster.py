"""Rasters larger than memory: words and a budget in, a label TIFF out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from zlib import crc32

import numpy as np

from ovseg.dense.windows import Box
from ovseg.files import atomic_write, write_json
from ovseg.locks import locked
from ovseg.marks import check_own, save_png
from ovseg.pictures.identity import PictureFile
from ovseg.pictures.images import unique_stems
from ovseg.pictures.raster import Raster
from ovseg.predict.memory import read_bytes, resident
from ovseg.predict.plan import Plan
from ovseg.predict.segment import Segmenter
from ovseg.predict.strips import Strips
from ovseg.results.draw import MAX_SIDE, MIN_SIDE, by_area, count_labels, draw_overlay
from ovseg.results.raster_files import Rows, bands, save_tiff
from ovseg.results.store import check_place, record

from .base_predictor import ModelWords

FILES = {"overlay": "_overlay.png", "labels": "_labels.tif", "json": ".json"}
PER_DRAWN = 96  # bytes per pixel while an overlay is drawn


@dataclass
class RasterResult:
    """What was written.

    paths       of each format, in the order written
    areas       share of the valid part of the raster, in (0, 1], of each class that occurs, largest first
    unread      what could not be read of the picture, and is unlabeled, in words: one line, or None
    """

    paths: dict[str, Path]
    areas: dict[str, float]
    unread: str | None


class RasterRun:
    """One raster, planned: look at ``plan``, then ``save``.

    Attributes:
        plan: sizes, strips, memory; prints as a short table.
        path, provenance, vocabulary, unlabeled: as of a ``Result``.
    """

    def __init__(self, engine: Segmenter, words: ModelWords, path: str | Path, memory: str | int):
        budget = read_bytes(memory)
        self.vocabulary = words.vocabulary
        self.unlabeled = 255 if len(self.vocabulary) <= 255 else 65535
        self._threshold = engine.pipeline.applied(self.vocabulary).threshold
        protocol = engine.pipeline.protocol
        self._raster = Raster(path, protocol.range, protocol.bands)
        self.path = self._raster.path
        self.provenance = engine.provenance(self.vocabulary).of(PictureFile.of_file(self.path))
        try:
            self._raster.look()
            text, classes = words.encoded.text, self.vocabulary.prompt_to_class
            self._strips = Strips(engine.pipeline, self._raster, text, classes, budget)
        except BaseException:
            self._raster.close()
            raise

    @property
    def plan(self) -> Plan:
        return self._strips.plan

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        resume: bool = False,
        report: Callable[[int], None] | None = None,
        overwrite: bool = False,
    ) -> RasterResult:
        """Run the windows and write files, each of them whole or not at all; once, for the raster is closed then.

        * ``<stem>_labels.tif``: tiles of ids, 8 bit with the colors of the classes for up to 255 of them, 16 bit
          beyond; 255 or 65535, the nodata value, where there is none or the raster holds no data; georeference of the
          raster.
        * ``<stem>_overlay.png``: a small picture with a legend, its long side as the budget allows, at most 2048.
        * ``<stem>.json``, last: areas, settings, the plan, and blocks that could not be read.

        Until then the rows that are done are kept in ``<stem>_labels.part``, and a lock keeps other processes away.

        Args:
            folder: made if it does not exist.
            stem: beginning of the file names; that of the raster by default.
            resume: go on after the strips that an interrupted run of the same words, weights, settings and file left.
            report: called with the number of windows that are done since the last call; windows of strips that need not
                be run again come first.
            overwrite: also replace files that ovseg did not write.

        Raises:
            ValueError: a stem with a folder in it, a folder that is a file; a file that is not ovseg's (NotOwnError);
                another process writes the same files (LockedError).
            OSError: the disk is full, or the folder cannot be written to; what is done can be resumed.
        """
        folder, stem = Path(folder).expanduser(), unique_stems([self.path])[0] if stem is None else stem
        check_place(folder, stem)
        with self._raster:
            check_own(files_of(folder, stem).values(), overwrite)
            folder.mkdir(parents=True, exist_ok=True)
            with locked(
                folder / f".{stem[:30]}-{crc32(stem.encode()):08x}.ovseg-lock", f"the labels of {self.path} are"
            ):
                return self._save(folder, stem, resume, report)

    def _save(self, folder: Path, stem: str, resume: bool, report: Callable[[int], None] | None) -> RasterResult:
        raster, grid = self._raster, self._strips.grid
        kind = np.uint8 if self.unlabeled == 255 else np.uint16
        rows = Rows(folder, stem, (raster.height, raster.width), kind, self.provenance, resume)
        raster.unread.update(rows.unread)
        if report and rows.done:
            first = len(grid.tops) if rows.done == raster.height else grid.first(rows.done)
            report(first * len(grid.lefts))
        below = self.unlabeled if self.vocabulary.background.kind == "none" else 0
        for _, labels in self._strips.run(self._threshold, below, self.unlabeled, rows.done, report):
            rows.append(labels, sorted(raster.unread), self._strips.invalid)
        return self._finish(rows, folder, stem)

    def _finish(self, rows: Rows, folder: Path, stem: str) -> RasterResult:
        vocabulary, size = self.vocabulary, (rows.height, rows.width)
        paths = files_of(folder, stem)
        save_tiff(paths["labels"], rows, self._raster, self.unlabeled, vocabulary.colors)
        count = sum(count_labels(labels, len(vocabulary)) for _, labels in bands(rows))
        with atomic_write(paths["overlay"]) as part:
            save_png(self._overlay(rows), part)
        unread = merged(rows.unread)
        more = {
            "plan": self.plan.to_dict(),
            "unread": [{"rows": [top, bottom], "columns": [left, right]} for top, left, bottom, right in unread],
            "files": {form: path.name for form, path in paths.items() if form != "json"},
        }
        write_json(paths["json"], record("ovseg-raster", self, size, count, invalid=rows.invalid) | more)
        rows.remove()
        valid = size[0] * size[1] - rows.invalid
        areas = {vocabulary.names[i]: float(count[i] / valid) for i in by_area(count)}
        return RasterResult(paths, areas, self._unread_message(unread) if unread else None)

    def _overlay(self, rows: Rows):
        room = max(0, self.plan.budget - resident()) // PER_DRAWN
        pixels, y, x = self._raster.small(min(MAX_SIDE, max(MIN_SIDE, isqrt(room))))
        labels = np.stack([rows.read(row, row + 1)[0, x] for row in y.tolist()])
        untinted = () if self.vocabulary.background.kind == "none" else (0,)
        outside = rows.invalid / (rows.height * rows.width)
        names, colors = self.vocabulary.names, self.vocabulary.colors
        return draw_overlay(pixels, labels, names, colors, untinted=untinted, outside=outside)

    def _unread_message(self, unread: Sequence[Box]) -> str:
        parts = [f"rows {top} to {bottom - 1}, columns {left} to {right - 1}" for top, left, bottom, right in unread]
        blocks = "; ".join(parts[:5]) + (f"; and {len(parts) - 5} more blocks" if len(parts) > 5 else "")
        return f"{self.path}: damaged at {blocks}; these pixels are unlabeled"


def files_of(folder: Path, stem: str) -> dict[str, Path]:
    """What ``RasterRun.save`` writes, by kind, in that order."""
    return {kind: folder / f"{stem}{ending}" for kind, ending in FILES.items()}


def merged(boxes: Sequence[Box]) -> list[Box]:
    """The same blocks, those of the same columns that follow each other joined, from top to bottom."""
    blocks: dict[tuple[int, int, int], Box] = {}  # by left, right and the row below the last
    for top, left, bottom, right in sorted(boxes):
        first = blocks.pop((left, right, top), (top,))[0]
        blocks[left, right, bottom] = (first, left, bottom, right)
    return sorted(blocks.values())
