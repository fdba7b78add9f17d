"""The label map of a raster as files: rows while they are made, and at the end a TIFF."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from warnings import catch_warnings, simplefilter

import numpy as np

from ovseg.compat.untrusted import read_json, whole
from ovseg.dense.windows import Box
from ovseg.files import atomic_write, write_json
from ovseg.marks import MARK, NotOwnError, is_free
from ovseg.pictures.raster import Raster

from .provenance import Provenance

TILE = 512


class Rows:
    """Labels on disk, row after row: ``<stem>_labels.part``, and beside it what they were made under and how many there
    are, so that an interrupted run can go on.  Plain writes: mapped pages would count as memory of the process.

    Links are never followed, and of two names for one file the other is left alone.

    Args:
        folder, stem: of the final files.
        size: (H, W).
        kind: uint8 or uint16.
        provenance: what all rows are made with.
        resume: go on after the rows that are there, if they were made with the same.

    Raises:
        NotOwnError: a file of another kind has this name.

    Attributes:
        done: rows that are written.
        unread: blocks of the picture that could not be read for them.
        invalid: pixels of them that hold no data.
    """

    def __init__(self, folder: Path, stem: str, size: tuple[int, int], kind, provenance: Provenance, resume: bool):
        self.height, self.width = size
        self.kind, self.provenance = np.dtype(kind), provenance
        self._rows, self._note = folder / f"{stem}_labels.part", folder / f"{stem}_labels.part.json"
        if not (is_free(self._rows) or self._rows.is_symlink() or self._noted()):
            raise NotOwnError(f"{self._rows} is no file of ovseg: move it away, or give another folder.")
        self.done, self.unread, self.invalid = self._known() if resume else (0, [], 0)
        if self.done:
            with self._open(os.O_WRONLY) as file:
                file.truncate(self.done * self._bytes)
        else:
            self._write_note()  # first: it says whose the rows are
            self._rows.unlink(missing_ok=True)
            self._open(os.O_WRONLY | os.O_CREAT | os.O_EXCL).close()

    def append(self, labels: np.ndarray, unread: Sequence[Box], invalid: int = 0):
        """Write the next rows (n, W), ``invalid`` pixels of which hold no data, for good: an interruption leaves either
        all of them or none."""
        with self._open(os.O_WRONLY) as file:
            file.seek(self.done * self._bytes)
            file.write(labels.tobytes())
            file.flush()
            os.fsync(file.fileno())
        self.done += len(labels)
        self.unread, self.invalid = sorted(unread), self.invalid + invalid
        self._write_note()

    def read(self, first: int, last: int) -> np.ndarray:
        """Rows [first, last), (last − first, W)."""
        count = (last - first) * self.width
        with self._open(os.O_RDONLY) as file:
            labels = np.fromfile(file, self.kind, count, offset=first * self._bytes)
        return labels.reshape(-1, self.width)

    def remove(self):
        self._note.unlink(missing_ok=True)
        self._rows.unlink(missing_ok=True)

    @property
    def _bytes(self) -> int:
        return self.width * self.kind.itemsize

    def _open(self, flags: int):
        modes = {os.O_RDONLY: "rb"}
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        return os.fdopen(os.open(self._rows, flags, 0o666), modes.get(flags & os.O_ACCMODE, "wb"))

    def _write_note(self):
        note = {"provenance": self.provenance.to_dict(), "done": self.done}
        write_json(self._note, note | {"unread": self.unread, "invalid": self.invalid})

    def _noted(self) -> bool:
        """Whether the rows that are there are ovseg's."""
        try:
            Provenance.from_dict(read_json(self._note)["provenance"])
            return True
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False

    def _known(self) -> tuple[int, list[Box], int]:
        """What an interrupted run left: rows that are done, and of them blocks unread and pixels without data."""
        try:
            note = read_json(self._note)
            info = self._rows.lstat()
            done = whole(0, self.height)(note["done"], "done")
            same = not Provenance.from_dict(note["provenance"]).differences(self.provenance)
            there = info.st_size >= done * self._bytes and stat.S_ISREG(info.st_mode) and info.st_nlink == 1
            side = whole(0, 2**31)
            unread = [tuple(side(edge, "unread") for edge in box) for box in note["unread"] if len(box) == 4]
            invalid = whole(0, done * self.width)(note["invalid"], "invalid")
            return (done, unread, invalid) if same and there else (0, [], 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return 0, [], 0


def save_tiff(path: Path, rows: Rows, raster: Raster, unlabeled: int, colors: Sequence[tuple]) -> None:
    """Write all rows as a tiled, compressed TIFF with the georeference of the picture; up to 255 classes with their
    colors.  Atomic, and read back before it has its name: GDAL does not always say that a disk is full.

    Raises:
        OSError: it cannot be written, or not all of it.
    """
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
        try:
            with rasterio().open(part, "w", **profile) as file:
                if rows.kind == np.uint8:
                    file.write_colormap(1, {i: (*color, 255) for i, color in enumerate(colors)})
                file.update_tags(TIFFTAG_SOFTWARE=MARK)
                for top, labels in bands(rows):
                    file.write(labels, 1, window=((top, top + len(labels)), (0, rows.width)))
            with rasterio().open(part) as file:
                read_back = (
                    file.read(1, window=((top, top + len(each)), (0, rows.width))) for top, each in bands(rows)
                )
                whole_file = all(np.array_equal(a, b) for a, (_, b) in zip(read_back, bands(rows), strict=True))
        except rasterio().errors.RasterioError:
            whole_file = False
        if not whole_file:
            raise OSError(f"{path} could not be written in full; the disk may be full")


def bands(rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
    """All rows, a row of tiles at a time: the first row and labels (n, W)."""
    for top in range(0, rows.height, TILE):
        yield top, rows.read(top, min(top + TILE, rows.height))
