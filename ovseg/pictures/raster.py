"""Reading a raster by window: the pixels ``load_image`` would give, a few rows at a time."""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from PIL import Image

from ovseg.dense.windows import Box

from .images import check_file
from .pixels import ImageError, exif_orientation, from_numpy, pillow_limit

DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}
"""By how a file begins; no formats that name other files or addresses."""
CHUNK = 2**20  # pixels that are converted at a time
PER_PIXEL = 32  # bytes meanwhile


def rasterio() -> Any:
    """The module.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import rasterio as module
    except ImportError:
        raise ValueError(
            'reading pictures by window needs rasterio, which is not installed. Type: pip install "rasterio>=1.4"'
        ) from None
    return module


class Raster:
    """A TIFF, PNG, JPEG or JPEG 2000 file, open for reading by window; ``with`` bounds what GDAL keeps of it.

    What cannot be read is black, and remembered.

    Attributes:
        path, height, width: of the picture.
        unread: blocks (top, left, bottom, right) that could not be read so far, a set.
        crs, transform: georeference; None and the identity where the file has none.
        cache: bytes that GDAL keeps, two rows of the file's blocks.

    Raises:
        ImageNotFoundError: no such file.
        ImageError: no raster, or bands and types that are no picture.
        ValueError: rasterio is not installed.
    """

    def __init__(self, path: str | Path):
        if str(path).lower().startswith(("http://", "https://")):
            raise ImageError(f"{path} is an address, and pictures are read by window from files. Download it first.")
        self.path = Path(path).expanduser()
        check_file(self.path)
        self._gdal, self._stack = rasterio(), ExitStack()
        with self.path.open("rb") as file:
            begins = file.read(8)
        driver = next((name for start, name in DRIVERS.items() if begins.startswith(start)), None)
        if driver is None:
            raise ImageError(
                f"{self.path} is no TIFF, PNG, JPEG or JPEG 2000, and only these are read by window. Leave out the "
                "memory budget (--memory) to read it whole, or convert it: gdal_translate IN OUT.tif."
            )
        try:
            with _quiet():
                self._file = self._gdal.open(self.path, driver=driver)
        except self._gdal.errors.RasterioIOError as error:
            raise ImageError(f"{self.path} is a damaged picture or an incomplete copy: {error}.") from error
        try:
            self._bands, self._table, self._factor = self._how_to_read()
        except ImageError:
            self.close()
            raise
        self.height, self.width = self._file.height, self._file.width
        self.crs, self.transform = self._file.crs, self._file.transform
        self.unread: set[Box] = set()
        rows, columns = self._file.block_shapes[0]
        across = -(-self.width // columns) * columns
        itemsize = np.dtype(self._file.dtypes[0]).itemsize
        self.cache = max(2**24, 2 * rows * across * self._file.count * itemsize)

    def __enter__(self) -> "Raster":
        self._stack.enter_context(self._gdal.Env(GDAL_CACHEMAX=self.cache, GDAL_ERROR_ON_LIBJPEG_WARNING="YES"))
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._file.close()
        self._stack.close()

    def rows(self, first: int, last: int) -> np.ndarray:
        """Pixels of the rows [first, last), uint8 RGB (last − first, W, 3)."""
        made = np.empty((last - first, self.width, 3), np.uint8)
        step = max(1, CHUNK // self.width)
        for a in range(first, last, step):
            b = min(a + step, last)
            made[a - first : b - first] = self._convert(self._read(a, b))
        return made

    def small(self, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every so many pixels, so that the long side has at most ``side``: uint8 RGB (h, w, 3), and which rows (h,)
        and columns (w,) they are."""
        scale = min(1.0, side / max(self.height, self.width))
        rows, columns = (
            ((np.arange(max(1, round(n * scale))) + 0.5) * n // max(1, round(n * scale))).astype(int)
            for n in (self.height, self.width)
        )
        return np.stack([self.rows(y, y + 1)[0, columns] for y in rows.tolist()]), rows, columns

    def _how_to_read(self):
        """Bands that are read, a palette (256, C) or None, and what values are multiplied by."""
        file, what = self._file, str(self.path)
        kinds = [kind.name for kind in file.colorinterp]
        if len(set(file.dtypes)) > 1 or file.dtypes[0] not in ("uint8", "uint16"):
            raise ImageError(
                f"{what} holds {', '.join(sorted(set(file.dtypes)))}; pictures read by window are of 8 or 16 bits. "
                "Scale it: gdal_translate -ot Byte -scale IN OUT."
            )
        grey_alpha = file.count == 2 and kinds[1] == "alpha"
        if file.count not in (1, 3, 4) and not grey_alpha or "cyan" in kinds:
            raise ImageError(
                f"{what} has {file.count} bands ({', '.join(kinds)}); a picture has one (grey), three (red, green, "
                "blue) or a fourth for transparency. Choose three: gdal_translate -b 3 -b 2 -b 1 IN OUT."
            )
        if exif_of(self.path) != 1:
            raise ImageError(
                f"{what} is stored turned or mirrored, which reading by window does not undo. Save it upright, or "
                "leave out the memory budget (--memory)."
            )
        if grey_alpha:
            return [1, 1, 1, 2], None, 1
        if file.count == 1 and kinds[0] == "palette":
            table = np.zeros((256, 4), np.uint8)
            for index, colour in file.colormap(1).items():
                if index < 256:
                    table[index] = colour
            used = list(file.colormap(1))
            return [1], table if (table[used, 3] < 255).any() else np.ascontiguousarray(table[:, :3]), 1
        bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
        factor = 255 // (2**bits - 1) if bits in (1, 2, 4) else 1
        extra = file.count == 4 and kinds[3] != "alpha"
        return list(range(1, file.count + 1 - extra)), None, factor

    def _convert(self, values: np.ndarray) -> np.ndarray:
        """(bands, rows, W) of the file → uint8 RGB (rows, W, 3)."""
        if self._table is not None:
            return from_numpy(self._table[values[0]], str(self.path))
        return from_numpy(np.moveaxis(values * np.uint8(self._factor), 0, 2), str(self.path))

    def _read(self, first: int, last: int) -> np.ndarray:
        """The file's values (bands, last − first, W)."""
        try:
            return self._window(first, 0, last, self.width)
        except self._gdal.errors.RasterioIOError:
            pass
        height, width = self._file.block_shapes[0]
        made = np.zeros((len(self._bands), last - first, self.width), self._file.dtypes[0])
        for top in range(first // height * height, last, height):
            for left in range(0, self.width, width):
                right, a, b = min(left + width, self.width), max(top, first), min(top + height, last)
                try:
                    made[:, a - first : b - first, left:right] = self._window(a, left, b, right)
                except self._gdal.errors.RasterioIOError:
                    self.unread.add((top, left, min(top + height, self.height), right))
        return made

    def _window(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        return self._file.read(self._bands, window=((top, bottom), (left, right)))


class _quiet(catch_warnings):
    """No word about files without a georeference."""

    def __enter__(self):
        super().__enter__()
        simplefilter("ignore", rasterio().errors.NotGeoreferencedWarning)


def exif_of(path: Path) -> int:
    """How a file says its picture is turned, 1 for not at all."""
    with suppress(Exception), pillow_limit(), Image.open(path) as image:  # of formats that Pillow does not know too
        return exif_orientation(image)
    return 1
