"""Reading a raster by window: the pixels ``load_image`` would give, a few rows at a time."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from PIL import Image

from ovseg.dense.windows import Box

from .errors import ImageError
from .files import check_file, holds_mask
from .levels import Coding, Range, unknown_type, warn_if_dark
from .pixels import exif_orientation, pillow_limit
from .tags import read_tags

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
OWN_MASKS = ("GTiff", "JP2OpenJPEG")
"""Formats whose transparency says where there is no data; in others it is laid over white, as photographs have it."""

CHUNK = 2**20  # pixels that are converted at a time
PER_PIXEL = 32  # bytes meanwhile
LOOKS = 16  # blocks that are looked at before


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

    Args:
        path: of the file.
        limits: values that are black and white; those that the file names, or the range of its type, unless given.
        bands: one or three to read, counted from 1; by what the file says of them unless given.
        turned: also read a picture that is stored turned, as it is stored.

    Attributes:
        path, height, width: of the picture.
        unread: blocks (top, left, bottom, right) that could not be read so far, a set.
        crs, transform: georeference; None and the identity where the file has none.
        cache: bytes that GDAL keeps, two rows of the file's blocks.
        orientation: how it is stored turned, 1 for upright.
        highest: largest value so far of bands that nothing names the range of.

    Raises:
        ImageNotFoundError: no such file.
        ImageError: no raster, or bands and types that are no picture.
        ValueError: rasterio is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        limits: Range | None = None,
        bands: Sequence[int] | None = None,
        turned: bool = False,
    ):
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
        self.height, self.width, self.highest = self._file.height, self._file.width, 0.0
        self.orientation = exif_of(self.path)
        self._masks = driver in OWN_MASKS or holds_mask(self.path)
        try:
            self._bands, self._coding = self._how_to_read(limits, bands, turned)
            self._masked = self._masks and self._has_mask()
        except ImageError:
            self.close()
            raise
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
        return self.read(first, last)[0]

    def read(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of the rows [first, last), uint8 RGB (last − first, W, 3), and where they hold no data, bool
        (last − first, W)."""
        pixels = np.empty((last - first, self.width, 3), np.uint8)
        invalid = np.zeros((last - first, self.width), bool)
        step = max(1, CHUNK // self.width // (1 if self._coding.dtype.itemsize <= 2 else 4))
        for a in range(first, last, step):
            b = min(a + step, last)
            pixels[a - first : b - first], invalid[a - first : b - first] = self._convert(self._values(a, b), a, b)
        return pixels, invalid

    def small(self, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every so many pixels, so that the long side has at most ``side``: uint8 RGB (h, w, 3), and which rows (h,)
        and columns (w,) they are."""
        scale = min(1.0, side / max(self.height, self.width))
        rows, columns = (
            ((np.arange(max(1, round(n * scale))) + 0.5) * n // max(1, round(n * scale))).astype(int)
            for n in (self.height, self.width)
        )
        return np.stack([self.rows(y, y + 1)[0, columns] for y in rows.tolist()]), rows, columns

    def _how_to_read(self, limits: Range | None, bands: Sequence[int] | None, turned: bool) -> tuple[list[int], Coding]:
        """Bands that are read, counted from 1, and what they mean."""
        file, what, tags = self._file, str(self.path), read_tags(self.path)
        kinds = [kind.name for kind in file.colorinterp]
        colors, alpha = self._colors(kinds, bands)
        dtypes = {file.dtypes[band - 1] for band in [*colors, *alpha]}
        if self.orientation != 1 and not turned:
            raise ImageError(
                f"{what} is stored turned or mirrored, which reading by window does not undo. Save it upright, or "
                "leave out the memory budget (--memory)."
            )
        dtype = np.dtype(dtypes.pop()) if len(dtypes) == 1 and "complex" not in file.dtypes[colors[0] - 1] else None
        if dtype is None:
            raise ImageError(f"{what} holds {', '.join(sorted(set(file.dtypes)))}, which is no picture.")
        inverted = tags is not None and tags.photometric == 0 and dtype.kind != "f"
        bits = int(file.tags(colors[0], ns="IMAGE_STRUCTURE").get("NBITS", 8 * dtype.itemsize))
        depth = None if dtype.kind != "u" or bits == 8 * dtype.itemsize else 2.0**bits - 1
        limits = limits or (tags.limits if tags else None) or ((0.0, depth) if depth else None)
        if limits is None and (dtype.kind == "i" or (dtype.kind == "u" and dtype.itemsize > 2)):
            raise unknown_type(what, str(dtype))
        palette, indexed = None, kinds[colors[0] - 1] == "palette" and len(colors) == 1 and not inverted
        if indexed and dtype != np.uint8:
            raise ImageError(f"{what} has a palette of {dtype}; palettes of 8 bits are read. Convert it to RGB.")
        if indexed:
            limits, palette = None, _palette(file.colormap(colors[0]))
        if inverted:
            limits = (limits or (0.0, float(np.iinfo(dtype).max)))[::-1]
        coding = Coding(
            dtype=dtype,
            colors=tuple(range(len(colors))),
            alpha=len(colors) if alpha else None,
            associated=bool(alpha and tags and tags.associated),
            palette=palette,
            limits=limits,
            opaque=depth,
            nodata=tuple(file.nodatavals[band - 1] for band in colors),
        )
        return [*colors, *alpha], coding

    def _colors(self, kinds: Sequence[str], bands: Sequence[int] | None) -> tuple[list[int], list[int]]:
        """Bands of color, one or three, and of opacity, one or none, counted from 1."""
        file, what = self._file, str(self.path)
        alpha = [kinds.index("alpha") + 1] if "alpha" in kinds[1:] else []
        if bands is not None:
            if max(bands) > file.count:
                raise ImageError(f"{what} has {file.count} bands, and {', '.join(map(str, bands))} are asked for.")
            return list(bands), [band for band in alpha if band not in bands]
        gray = file.count == 1 or (file.count == 2 and alpha)
        if not gray and (file.count not in (3, 4) or alpha == [2] or alpha == [3]) or "cyan" in kinds:
            raise ImageError(
                f"{what} has {file.count} bands ({', '.join(kinds)}); a picture has one (gray), three (red, green, "
                "blue) or a further one for transparency. Choose one or three: --bands 3,2,1 (Python: bands=(3, 2, "
                "1)), or gdal_translate -b 3 -b 2 -b 1 IN OUT."
            )
        return ([1] if gray else [1, 2, 3]), alpha

    def _has_mask(self) -> bool:
        flags = [flag.name for flag in self._file.mask_flag_enums[self._bands[0] - 1]]
        return "per_dataset" in flags and "alpha" not in flags

    def _convert(self, values: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray | bool]:
        """Values (bands, rows, W) of the rows [first, last) → uint8 RGB (rows, W, 3), and where there is no data."""
        pixels, invalid = self._coding.rgb(values, str(self.path)), self._coding.invalid(values)
        self._take_note(values, invalid)
        if self._masks:
            outside = self._outside(first, last) if self._masked else False
            return pixels, outside if invalid is None else invalid | outside
        if invalid is not None and self._coding.alpha is None:
            pixels[invalid] = 255  # a color of a PNG file that stands for full transparency
        return pixels, False

    def _take_note(self, values: np.ndarray, invalid: np.ndarray | None):
        """Of the largest value, where nothing says which one is white."""
        coding = self._coding
        if coding.limits is None and coding.palette is None and coding.dtype != np.uint8:
            valid = True if invalid is None else ~invalid
            self.highest = max(self.highest, float(values[: len(coding.colors)].max(where=valid, initial=0)))

    def _outside(self, first: int, last: int) -> np.ndarray | bool:
        """What the mask of the file, its own or one beside it, leaves out."""
        try:
            return self._file.read_masks(self._bands[0], window=((first, last), (0, self.width))) == 0
        except self._gdal.errors.RasterioIOError:
            return False

    def look(self):
        """Look at some blocks, so that values of another range than the type suggests are noticed before all is read.

        Raises:
            ImageError: floats outside [0, 1].
        """
        coding = self._coding
        if coding.limits is not None or coding.palette is not None or coding.dtype == np.uint8:
            return
        for window in self._looks():
            with suppress(self._gdal.errors.RasterioIOError):
                values = self._window(*window)
                coding.rgb(values, str(self.path))
                self._take_note(values, coding.invalid(values))
        self.warn()

    def warn(self):
        """Say if no value so far was bright, where nothing says which one is white."""
        warn_if_dark(self.highest, self._coding.dtype, str(self.path))

    def _looks(self) -> Iterator[Box]:
        """Windows spread over the picture: blocks, or rows where there are few blocks."""
        height, width = self._file.block_shapes[0]
        down, across = -(-self.height // height), -(-self.width // width)
        if down * across < LOOKS:
            height, width, down, across = 1, self.width, self.height, 1
        count = min(LOOKS, down * across)
        for i in range(count):
            row, column = divmod((2 * i + 1) * down * across // (2 * count), across)
            top, left = row * height, (column + i) % across * width
            yield top, left, min(top + max(1, min(height, CHUNK // width)), self.height), min(left + width, self.width)

    def _values(self, first: int, last: int) -> np.ndarray:
        """The file's values (bands, last − first, W)."""
        try:
            return self._window(first, 0, last, self.width)
        except self._gdal.errors.RasterioIOError:
            pass
        height, width = self._file.block_shapes[0]
        values = np.zeros((len(self._bands), last - first, self.width), self._coding.dtype)
        for top in range(first // height * height, last, height):
            for left in range(0, self.width, width):
                right, a, b = min(left + width, self.width), max(top, first), min(top + height, last)
                try:
                    values[:, a - first : b - first, left:right] = self._window(a, left, b, right)
                except self._gdal.errors.RasterioIOError:
                    self.unread.add((top, left, min(top + height, self.height), right))
        return values

    def _window(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        return self._file.read(self._bands, window=((top, bottom), (left, right)))


def _palette(colormap: dict[int, tuple[int, ...]]) -> np.ndarray:
    """(256, 3) uint8, or (256, 4) where a color is transparent."""
    table = np.zeros((256, 4), np.uint8)
    used = [index for index in colormap if index < 256]
    for index in used:
        table[index] = colormap[index]
    return table if (table[used, 3] < 255).any() else np.ascontiguousarray(table[:, :3])


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
