"""Any kind of pixels becomes (H, W, 3) uint8 RGB."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

MAX_PIXELS = 10**9
"""Largest image that is read, in pixels: one gigapixel, 3 GB as an array and about twice that while decoding."""


class ImageError(ValueError):
    """The source cannot be read as an image."""


class ImageNotFoundError(ImageError, FileNotFoundError):
    """There is no such file, folder or match."""

    __str__ = ValueError.__str__


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


def from_pillow(image: Image.Image, what: str) -> np.ndarray:
    """Pixels of a PIL image in any mode, turned as its EXIF data says. ``what`` names the source in errors."""
    _check_size(image.height, image.width, what)
    image.load()  # before the orientation is asked for: Pillow turns some TIFF files itself while loading
    turn = _EXIF_TURNS.get(exif_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)
        if image.mode == "I":
            if values.min() < 0 or values.max() > 65535:
                raise ImageError(
                    f"{what} holds 32-bit integers from {values.min()} to {values.max()}; which of them is black and "
                    "which white is not known. Scale it to 8 or 16 bits, or give a float array in [0, 1]."
                )
            values = values.astype(np.uint16)
        return from_numpy(values, what)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def from_tensor(tensor: Any) -> np.ndarray:
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
    return from_numpy((tensor.float() if tensor.is_floating_point() else tensor).numpy(), what)


def from_numpy(array: np.ndarray, what: str) -> np.ndarray:
    """Pixels, copied, of an array (H, W) or (H, W, C) with C = 1, 3 or 4. ``what`` names the source in errors."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        hint = ""
        if array.ndim == 3 and array.shape[0] in (1, 3, 4):
            hint = " It looks channels-first: give array.transpose(1, 2, 0)."
        elif array.ndim == 4:
            hint = " Give the images of a batch one by one: list(batch)."
        raise ImageError(
            f"{what} has the shape {array.shape}; an image is (H, W), (H, W, 1), (H, W, 3) in RGB order or (H, W, 4)."
            + hint
        )
    _check_size(*array.shape[:2], what)
    array = _to_uint8(array, what)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    if array.shape[2] == 4:
        return from_pillow(Image.fromarray(np.ascontiguousarray(array), "RGBA"), what)
    return np.array(array, order="C")


def _to_uint8(array: np.ndarray, what: str) -> np.ndarray:
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:  # 65535 = 255 * 257; adding half of 257 rounds to the nearest
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # a resampled image may overshoot by a hair; NaN is caught here too
            raise ImageError(
                f"{what} holds floats from {low:g} to {high:g}; float images must lie in [0, 1]. Divide by 255, undo "
                "a mean / std normalisation, or convert to uint8."
            )
        return (array.clip(0, 1).astype(np.float32) * 255 + 0.5).astype(np.uint8)
    raise ImageError(
        f"{what} has the type {array.dtype}; expected uint8, uint16, bool, or floats in [0, 1]. If its values are "
        "0..255, give array.astype('uint8')."
    )


def _check_size(height: int, width: int, what: str) -> None:
    if height < 1 or width < 1:
        raise ImageError(f"{what} has no pixels: it is {width} wide and {height} high.")
    if height * width > MAX_PIXELS:
        raise too_large(what, f"{width} x {height} = {height * width:,} pixels")


def too_large(what: str, size: str) -> ImageError:
    return ImageError(
        f"{what} is larger than the {MAX_PIXELS:,} pixels (1 gigapixel) that are read into memory: {size}. Segment it "
        "by window (ovseg predict … --memory 2GB), or cut it into tiles or shrink it, and give those."
    )
