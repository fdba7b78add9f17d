"""The label map of a raster as files: rows while they are made, and at the end a TIFF."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np

from ovseg.compat.untrusted import read_json
from ovseg.dense.windows import Box
from ovseg.files import atomic_write, write_json
from ovseg.pictures.raster import Raster

from .provenance import Provenance

TILE = 512


class Rows:
    """Labels on disk, row after row: ``<stem>_labels.part``, and beside it what they were made under and how many there
    are, so that an interrupted run can go on.  Plain writes: mapped pages would count as memory of the process.

    Args:
        folder, stem: of the final files.
        size: (H, W).
        kind: uint8 or uint16.
        provenance: what all rows are made with.
        resume: go on after the rows that are there, if they were made with the same.

    Attributes:
        done: rows that are written.
        unread: blocks of the picture that could not be read for them.
        invalid: pixels of them that hold no data.
    """

    def __init__(self, folder: Path, stem: str, size: tuple[int, int], kind, provenance: Provenance, resume: bool):
        self.height, self.width = size
        self.kind, self.provenance = np.dtype(kind), provenance
        folder.mkdir(parents=True, exist_ok=True)
        self._rows, self._note = folder / f"{stem}_labels.part", folder / f"{stem}_labels.part.json"
        self.done, self.unread, self.invalid = self._known() if resume else (0, [], 0)
        with self._rows.open("ab") as file:
            file.truncate(self.done * self._bytes)

    def append(self, labels: np.ndarray, unread: Sequence[Box], invalid: int = 0):
        """Write the next rows (n, W), ``invalid`` pixels of which hold no data, for good: an interruption leaves either
        all of them or none."""
        with self._rows.open("r+b") as file:
            file.seek(self.done * self._bytes)
            file.write(labels.tobytes())
            file.flush()
            os.fsync(file.fileno())
        self.done += len(labels)
        self.unread, self.invalid = sorted(unread), self.invalid + invalid
        note = {"provenance": self.provenance.to_dict(), "done": self.done}
        write_json(self._note, note | {"unread": self.unread, "invalid": self.invalid})

    def read(self, first: int, last: int) -> np.ndarray:
        """Rows [first, last), (last − first, W)."""
        count = (last - first) * self.width
        labels = np.fromfile(self._rows, self.kind, count, offset=first * self._bytes)
        return labels.reshape(-1, self.width)

    def remove(self):
        self._note.unlink(missing_ok=True)
        self._rows.unlink(missing_ok=True)

    @property
    def _bytes(self) -> int:
        return self.width * self.kind.itemsize

    def _known(self) -> tuple[int, list[Box], int]:
        try:
            note = read_json(self._note)
            same = not Provenance.from_dict(note["provenance"]).differences(self.provenance)
            whole = self._rows.stat().st_size >= note["done"] * self._bytes
            rows = note["done"], [tuple(box) for box in note["unread"]], int(note["invalid"])
            return rows if same and whole else (0, [], 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return 0, [], 0


def save_tiff(path: Path, rows: Rows, raster: Raster, unlabeled: int, colors: Sequence[tuple]) -> None:
    """Write all rows as a tiled, compressed TIFF with the georeference of the picture; up to 255 classes with their
    colors.  Atomic."""
    from ovseg.pictures.raster import rasterio

    profile = dict(
        driver="GTiff",
        height=rows.height,
        width=rows.width,
        count=1,
        dtype=rows.kind.name,
        nodata=unlabeled,
        crs=raster.crs,
        transform=raster.transform,
        tiled=True,
        blockxsize=TILE,
        blockysize=TILE,
        compress="deflate",
        predictor=2,
        bigtiff="if_safer",
    )
    with catch_warnings(), atomic_write(path) as part:
        simplefilter("ignore", rasterio().errors.NotGeoreferencedWarning)
        with rasterio().open(part, "w", **profile) as file:
            if rows.kind == np.uint8:
                file.write_colormap(1, {i: (*color, 255) for i, color in enumerate(colors)})
            for top, labels in bands(rows):
                file.write(labels, 1, window=((top, top + len(labels)), (0, rows.width)))


def bands(rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
    """All rows, a row of tiles at a time: the first row and labels (n, W)."""
    for top in range(0, rows.height, TILE):
        yield top, rows.read(top, min(top + TILE, rows.height))
