"""Any kind of pixels becomes (H, W, 3) uint8 RGB."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

from .errors import ImageError, ImageNotFoundError
from .levels import Coding, Range, as_type, check_floats, over_white, to_uint8, unknown_type, warn_if_dark
from .tags import FLOAT, SIGNED, Tags, parse

__all__ = ["ImageError", "ImageNotFoundError"]

MAX_PIXELS = 10**9
"""Largest image that is read, in pixels: one gigapixel, 3 GB as an array and about twice that while decoding."""


def is_tensor(source: Any) -> bool:
    # By the name of the class, so that torch is not imported for people who never use it; subclasses count.
    return any(cls.__module__ == "torch" and cls.__name__ == "Tensor" for cls in type(source).__mro__)


_limit_lock = threading.Lock()
_limit_users: list[int | None] = []


@contextmanager
def pillow_limit() -> Iterator[None]:
    """Lift Pillow's process-wide limit of about 0.09 gigapixels to ours; the last thread that leaves puts it back."""
    with _limit_lock:
        _limit_users.append(_limit_users[0] if _limit_users else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        yield
    finally:
        with _limit_lock:
            before = _limit_users.pop()
            if not _limit_users:
                Image.MAX_IMAGE_PIXELS = before


_EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(image: Image.Image) -> int:
    """1 to 8, as the EXIF data of a PIL image says; 1 where it says nothing."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF, of whichever kind, says nothing about the pixels
        return 1


def turned(array: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, …) as an EXIF orientation says that it is to be looked at."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.ascontiguousarray(np.flip(array, flips))


def from_pillow(image: Image.Image, what: str, limits: Range | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels of a PIL image in any mode, turned as its EXIF data says, and which of them are valid, (H, W) bool or None
    for all: nodata values and full transparency of TIFF files are not.

    Args:
        what: names the source in errors.
        limits: values that are black and white.
    """
    check_size(image.height, image.width, what)
    tags = parse(image.tag_v2) if hasattr(image, "tag_v2") else None
    if tags is not None:
        _check_tags(tags, limits, what)
    image.load()  # before the orientation is asked for: Pillow turns some TIFF files itself while loading
    turn = _EXIF_TURNS.get(exif_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _deep(image, tags, limits, what)
    invalid = None
    if tags is not None and tags.nodata is not None:
        invalid = _no_data(np.asarray(image), tags)
    if image.has_transparency_data:
        pixels = np.array(image.convert("RGBA"))
        if tags is not None and tags.alpha is not None:
            clear = pixels[..., 3] == 0
            invalid = clear if invalid is None else invalid | clear
        pixels[..., :3] = to_uint8(pixels[..., :3], limits)
        pixels = over_white(pixels)
    else:
        pixels = to_uint8(np.array(image.convert("RGB")), limits)
    return pixels, None if invalid is None or not invalid.any() else ~invalid


def _check_tags(tags: Tags, limits: Range | None, what: str):
    """Raise ImageError for a TIFF of which Pillow alone gives other pixels than it shows."""
    several = tags.samples > 1 and tags.bits > 8
    wrong = {
        "bands of more than 8 bits that are stored one after the other": several and tags.planar,
        "several bands of more than 8 bits with nodata values": several and tags.nodata is not None,
        "several bands of more than 8 bits with a range": several and (limits or tags.limits) is not None,
        "a mask": tags.masked,
    }
    issues = [what for what, is_so in wrong.items() if is_so]
    if issues:
        raise ImageError(
            f"{what} is a TIFF with {' and '.join(issues)}, which Pillow alone does not read rightly. Give its path, "
            'and install rasterio: pip install "rasterio>=1.4".'
        )


def _deep(image: Image.Image, tags: Tags | None, limits: Range | None, what: str):
    """Pixels and valid ones of one band of more than 8 bits."""
    values = np.asarray(image)
    limits = limits or (tags.limits if tags else None)
    form = tags.format if tags else 1
    if image.mode == "I" and limits is None:
        if values.min() < 0 or values.max() > 65535 or form == SIGNED or (tags and tags.bits > 16):
            raise unknown_type(what, f"32-bit integers from {values.min()} to {values.max()}")
        values = values.astype(np.uint16)
    if form == SIGNED and image.mode.startswith("I;16"):
        raise unknown_type(what, "signed 16-bit integers")
    if tags and tags.photometric == 0 and form != FLOAT:
        limits = (limits or (0, 65535))[::-1]
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    coding = Coding(values.dtype, (0,), limits=limits, nodata=() if tags is None else (tags.nodata,))
    if tags is None and values.dtype.kind == "f" and limits is None:
        check_floats(values, what)
    invalid = coding.invalid(values[None])
    if limits is None and values.size:
        warn_if_dark(values.max(where=~invalid, initial=0) if invalid is not None else values.max(), values.dtype, what)
    return coding.rgb(values[None], what), None if invalid is None or not invalid.any() else ~invalid


def _no_data(values: np.ndarray, tags: Tags) -> np.ndarray | None:
    """(H, W) bool of 8-bit values (H, W) or (H, W, C) as Pillow decoded them."""
    key = as_type(tags.nodata, np.dtype(np.uint8)) if values.dtype == np.uint8 else None
    if key is None:
        return None
    colors = values[..., None] if values.ndim == 2 else values[..., : 1 if values.shape[2] == 2 else 3]
    return (colors == (255 - key if tags.photometric == 0 else key)).all(2)


def from_tensor(tensor: Any, limits: Range | None = None) -> np.ndarray:
    """Pixels of a torch tensor, (H, W), (C, H, W) or (H, W, C) with C = 1, 3 or 4, on any device."""
    what = f"the tensor of shape {tuple(tensor.shape)}"
    tensor = tensor.detach().cpu()
    if tensor.ndim == 3 and tensor.shape[0] in (1, 3, 4):
        tensor = tensor.permute(1, 2, 0)
    if tensor.ndim not in (2, 3) or (tensor.ndim == 3 and tensor.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"{what} is not an image: expected (3, H, W), (1, H, W), (4, H, W), (H, W, 3) or (H, W). Give the images "
            "of a batch one by one: list(batch)."
        )
    return from_numpy((tensor.float() if tensor.is_floating_point() else tensor).numpy(), what, limits)


def from_numpy(
    array: np.ndarray, what: str, limits: Range | None = None, bands: Sequence[int] | None = None
) -> np.ndarray:
    """Pixels, copied, of an array (H, W) or (H, W, C) with C = 1, 3 or 4, or any C to choose bands of. ``what`` names
    the source in errors."""
    if bands is not None and array.ndim == 3:
        if max(bands) > array.shape[2]:
            raise ImageError(
                f"{what} has {array.shape[2]} bands, and the bands {', '.join(map(str, bands))} are asked for."
            )
        array = array[..., [band - 1 for band in bands]]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = " It looks channels-first: give array.transpose(1, 2, 0)."
        elif array.ndim == 4:
            hint = " Give the images of a batch one by one: list(batch)."
        elif array.ndim == 3:
            hint = " Choose bands: bands=(3, 2, 1)."
        raise ImageError(
            f"{what} has the shape {array.shape}; an image is (H, W), (H, W, 1), (H, W, 3) in RGB order or (H, W, 4)."
            + hint
        )
    check_size(array.shape[0], array.shape[1], what)
    if array.ndim == 2:
        array = array[:, :, None]
    array = _to_bytes(array, what, limits)
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.array(over_white(array), order="C")


def _to_bytes(array: np.ndarray, what: str, limits: Range | None) -> np.ndarray:
    """(H, W, C) of any type → uint8."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    unknown = array.dtype.kind not in "uif" or (limits is None and array.dtype not in (np.uint8, np.uint16))
    if unknown and array.dtype.kind != "f":
        raise ImageError(
            f"{what} has the type {array.dtype}; without a range, expected uint8, uint16, bool, or floats in [0, 1]. "
            "If its values are 0..255, give array.astype('uint8'); else say what is black and white: range=(LOW, HIGH)."
        )
    if array.dtype.kind == "f":
        if limits is None:
            check_floats(array, what)
        elif np.isnan(array.sum()):
            raise ImageError(f"{what} holds NaN, which is no brightness. Replace them: numpy.nan_to_num(array).")
    if limits is None:
        warn_if_dark(array.max(), array.dtype, what)
    colors = to_uint8(array[..., :3], limits)
    return colors if array.shape[2] != 4 else np.dstack([colors, to_uint8(array[..., 3:], None)])


def check_size(height: int, width: int, what: str) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{what} has no pixels: it is {width} wide and {height} high.")
    if height * width > MAX_PIXELS:
        raise too_large(what, f"{width} x {height} = {height * width:,} pixels")


def too_large(what: str, size: str) -> ImageError:
    return ImageError(
        f"{what} is larger than the {MAX_PIXELS:,} pixels (1 gigapixel) that are read into memory: {size}. Segment it "
        "by window (ovseg predict … --memory 2GB), or cut it into tiles or shrink it, and give those."
    )
