"""A file becomes pixels: by Pillow, or by GDAL where Pillow would give others than the file shows."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from .budget import READING, OverBudgetError, check_budget, over_budget
from .errors import ImageError
from .files import holds_mask
from .levels import Range
from .pixels import check_size, from_pillow, pillow_limit, too_large, turned
from .tags import read_tags

MASK = "a mask or nodata value of GDAL"

Pixels = tuple[np.ndarray, np.ndarray | None]
"""(H, W, 3) uint8 RGB, and which of them are valid, (H, W) bool, None for all."""


def decode(
    file: Path | BytesIO,
    what: str,
    limits: Range | None = None,
    bands: Sequence[int] | None = None,
    per_pixel: float = READING,
) -> Pixels:
    """Pixels of a file or of its bytes.

    Args:
        what: names the file in errors.
        limits: values that are black and white.
        bands: one or three to read, counted from 1.
        per_pixel: bytes per pixel that it may not take the free memory with, see ``check_budget``.

    Raises:
        ImageError: not an image, too large, or one that only GDAL reads rightly where rasterio is not installed.
    """
    reason = _needs_gdal(file)
    if bands is not None or (reason and _has_rasterio()):
        with _on_disk(file) as path:
            return _by_gdal(path, what, limits, bands, per_pixel)
    if reason == MASK:
        raise needs_rasterio(what, reason)
    try:
        with reading(what), Image.open(file) as image:
            check_size(image.height, image.width, what)
            check_budget(image.height, image.width, what, per_pixel)
            return from_pillow(image, what, limits)
    except OverBudgetError:
        raise
    except ImageError as error:
        if reason:
            raise needs_rasterio(what, reason) from error
        raise


@contextmanager
def _on_disk(file: Path | BytesIO) -> Iterator[Path]:
    """A path of the file, for as long as it is needed."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "image")
        path.write_bytes(file.getbuffer())
        yield path


def needs_rasterio(what: str, reason: str) -> ImageError:
    return ImageError(
        f"{what} has {reason}, which Pillow alone cannot read rightly. Install rasterio, and it is read: pip install "
        '"rasterio>=1.4".'
    )


def _needs_gdal(file: Path | BytesIO) -> str | None:
    """What of a file Pillow may get wrong, in words; None for what it reads as others show it."""
    if isinstance(file, Path):
        if holds_mask(file):
            return MASK
        with reading(str(file)), file.open("rb") as stream:
            begins = stream.read(26)
    else:
        begins = bytes(file.getbuffer()[:26])
    if begins.startswith((b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")):
        return "a kind of JPEG 2000"
    if begins.startswith(b"\x89PNG") and begins[24:25] == b"\x10" and begins[25:26] != b"\0":
        return "colors of 16 bits"
    tags = read_tags(file)
    if tags is None or tags.photometric not in (0, 1, 2, 3, 6):
        return None
    reasons = {
        MASK: tags.masked,
        f"values of {tags.bits} bits": tags.bits > 8,
        "signed values or floats": tags.format != 1,
        "a nodata value": tags.nodata is not None,
        f"{tags.samples} bands": tags.samples not in (1, 3),
    }
    return next((reason for reason, is_so in reasons.items() if is_so), None)


def _has_rasterio() -> bool:
    try:
        import rasterio  # noqa: F401
    except ImportError:
        return False
    return True


def _by_gdal(path: Path, what: str, limits, bands, per_pixel: float) -> Pixels:
    from .raster import Raster

    try:
        raster = Raster(path, limits, bands, turned=True)
    except ImageError as error:
        raise ImageError(str(error).replace(str(path), what)) from error
    except ValueError as error:  # rasterio is not installed
        raise ImageError(f"{what}: {error}") from error
    with raster, reading(what):
        check_size(raster.height, raster.width, what)
        check_budget(raster.height, raster.width, what, per_pixel)
        pixels, invalid = raster.read(0, raster.height)
        if raster.unread:
            raise ImageError(
                f"{what} is a damaged image or an incomplete download: {len(raster.unread)} blocks cannot be read. "
                "Copy or download it again, or segment what is left of it by window: --memory 2GB."
            )
        raster.warn()
        valid = ~invalid if invalid.any() else None
        return turned(pixels, raster.orientation), None if valid is None else turned(valid, raster.orientation)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Our size limit instead of Pillow's, and one clear error for whatever goes wrong inside."""
    with pillow_limit():
        try:
            yield
        except ImageError:
            raise
        except MemoryError as error:
            raise over_budget(what) from error
        except Image.DecompressionBombError as error:
            raise too_large(what, str(error)) from error
        except PermissionError as error:
            raise ImageError(f"{what} may not be read by this user: permission denied.") from error
        except UnidentifiedImageError as error:
            raise ImageError(
                f"{what} is not an image, or of a format that Pillow {Image.__version__} cannot read. Open it in a "
                "viewer to check; if it shows, save it as PNG or JPEG and give that."
            ) from error
        except Exception as error:  # Pillow's plugins let nearly any exception out when the bytes are broken
            raise ImageError(
                f"{what} is a damaged image or an incomplete download: {error or type(error).__name__}. Copy or "
                "download it again, or save it anew from a viewer."
            ) from error
