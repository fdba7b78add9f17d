"""How stored values become RGB uint8, and which pixels hold none: one rule for pictures read whole and by window."""

import math
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .errors import ImageError

Range = tuple[float, float]

HOW_TO_SAY = "Say which values are black and white: --range LOW,HIGH (Python: range=(LOW, HIGH))"
DARK = 2**15 - 1
"""16-bit values that never exceed this are probably of fewer bits."""

DARK_FLOAT = 1 / 16
"""Floats that never exceed this are probably of 12 bits divided by 65535, or the like."""


@dataclass(frozen=True)
class Coding:
    """What the bands of a picture mean.

    dtype       of all values
    colors      indices of one band (gray) or three (red, green, blue)
    alpha       index of the band of opacity, None where there is none; its largest value is opaque
    associated  colors are stored multiplied by the opacity
    palette     (256, 3 or 4) uint8 that the values of one band point into
    limits      the values that are shown black and white, in this order; None: the whole range of the type
    opaque      largest value of alpha; None: that of the type
    nodata      for each color band the value that stands for no data, or None
    """

    dtype: np.dtype
    colors: tuple[int, ...]
    alpha: int | None = None
    associated: bool = False
    palette: np.ndarray | None = None
    limits: Range | None = None
    opaque: float | None = None
    nodata: tuple[float | None, ...] = ()

    def rgb(self, values: np.ndarray, what: str) -> np.ndarray:
        """(bands, rows, W) of the file → uint8 RGB (rows, W, 3), partly transparent pixels over white.

        Raises:
            ImageError: floats outside [0, 1] that no limits were named for.
        """
        if self.palette is not None:
            return over_white(self.palette[values[self.colors[0]]])
        colors = values[list(self.colors)]
        if self.alpha is None:
            return np.ascontiguousarray(np.moveaxis(self._bytes(colors, what), 0, 2))[..., self._three]
        alpha = values[self.alpha]
        opaque = self.opaque or (1.0 if self.dtype.kind == "f" else float(np.iinfo(self.dtype).max))
        if self.associated:
            colors = _divided(colors, alpha, opaque)
        opacity = to_uint8(alpha, (0, opaque))
        return over_white(np.dstack([*self._bytes(colors, what)[self._three], opacity]))

    def invalid(self, values: np.ndarray) -> np.ndarray | None:
        """(rows, W) bool, true where there is no data: not opaque at all, every color the nodata value, or NaN; None
        where there cannot be such pixels."""
        parts = [] if self.alpha is None else [values[self.alpha] == 0]
        colors = values[list(self.colors)]
        if self.dtype.kind == "f":
            parts.append(np.isnan(colors).any(0))
        keys = [as_type(value, self.dtype) for value in self.nodata]
        if keys and None not in keys:
            same = [color == key for color, key in zip(colors, keys, strict=True) if key == key]
            parts += [np.logical_and.reduce(same)] if same else []
        return np.logical_or.reduce(parts) if parts else None

    @property
    def _three(self) -> list[int]:
        return [0, 1, 2] if len(self.colors) == 3 else [0, 0, 0]

    def _bytes(self, colors: np.ndarray, what: str) -> np.ndarray:
        if self.limits is None and self.dtype.kind == "f":
            checked = colors[np.isfinite(colors)]
            keys = [key for key in (as_type(value, self.dtype) for value in self.nodata) if key is not None]
            checked = checked[~np.isin(checked, keys)] if keys else checked
            check_floats(checked, what)
        return to_uint8(colors, self.limits)


def to_uint8(values: np.ndarray, limits: Range | None) -> np.ndarray:
    """Values from ``limits[0]`` (0) to ``limits[1]`` (255), clipped and rounded; the first may be the larger one. NaN
    becomes 0. None: the whole range of an unsigned type, and [0, 1] for floats."""
    dtype = values.dtype
    if limits is None:
        if dtype == np.uint8:
            return values
        limits = (0, 1) if dtype.kind == "f" else (0, np.iinfo(dtype).max)
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        codes = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype.newbyteorder("="))
        table = _scaled(codes.astype(np.float64), limits)
        return table[values.astype(dtype.newbyteorder("="), copy=False).view(f"u{dtype.itemsize}")]
    return _scaled(values.astype(np.float64 if dtype.itemsize > 4 or dtype.kind in "iu" else np.float32), limits)


def _scaled(values: np.ndarray, limits: Range) -> np.ndarray:
    low, high = limits
    share = (np.nan_to_num(values, nan=low) - values.dtype.type(low)) / values.dtype.type(high - low)
    return (share.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _divided(colors: np.ndarray, alpha: np.ndarray, opaque: float) -> np.ndarray:
    """Colors that were stored multiplied by alpha / opaque; those of fully transparent pixels stay."""
    if colors.dtype.kind == "f":
        return colors * (opaque / np.where(alpha == 0, opaque, alpha))
    wide: np.dtype = np.dtype(np.uint32 if colors.dtype.itemsize <= 2 else np.uint64)  # 65535 · 65535 < 2 ** 32
    divisor = np.where(alpha == 0, opaque, alpha).astype(wide)
    return np.minimum(colors.astype(wide) * wide.type(opaque) // divisor, wide.type(opaque)).astype(colors.dtype)


def over_white(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3 or 4) uint8 → (H, W, 3), transparency over white."""
    if pixels.shape[2] == 3:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels), "RGBA")
    return np.array(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def as_type(value: float | None, dtype: np.dtype):
    """A nodata value as values of a type hold it, None where they cannot."""
    if value is None:
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(value)
    whole = math.isfinite(value) and value == int(value)
    return dtype.type(int(value)) if whole and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max else None


def check_range(limits) -> Range | None:
    """Two finite numbers, the smaller one first; None stays None.

    Raises:
        ValueError: anything else.
    """
    if limits is None:
        return None
    try:
        low, high = (float(value) for value in limits)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(
            f"a range is two numbers, the value that is black and the larger one that is white, such as 0,4095; got "
            f"{limits!r}."
        )
    return low, high


def check_bands(bands: Any) -> tuple[int, ...] | None:
    """One or three bands, counted from 1; None stays None.

    Raises:
        ValueError: anything else.
    """
    if bands is None:
        return None
    chosen = tuple(bands) if isinstance(bands, Iterable) and not isinstance(bands, str) else ()
    whole = all(isinstance(band, int | np.integer) and not isinstance(band, bool) and band >= 1 for band in chosen)
    if len(chosen) not in (1, 3) or not whole:
        raise ValueError(f"bands are one or three numbers of bands, counted from 1, such as 4,3,2; got {bands!r}.")
    return tuple(int(band) for band in chosen)


def check_floats(values: np.ndarray, what: str):
    """Raise ImageError for floats that are not of [0, 1]."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # a resampled image may overshoot by a hair; NaN is caught here too
        raise ImageError(
            f"{what} holds floats from {low:g} to {high:g}; without a range, float images must lie in [0, 1]. "
            f"Divide by 255, undo a mean / std normalization, or convert to uint8. {HOW_TO_SAY}."
        )


def unknown_type(what: str, dtype: str) -> ImageError:
    return ImageError(
        f"{what} holds {dtype}, of which nothing says what is black and what is white. {HOW_TO_SAY}, or convert it: "
        "gdal_translate -ot Byte -scale IN OUT."
    )


_warned: set[str] = set()
_lock = threading.Lock()


def warn_if_dark(highest: float, dtype: np.dtype, what: str):
    """Say once of each number of bits that a picture whose values never exceed ``highest`` comes out dark."""
    if dtype == np.uint16 and 0 < highest <= DARK:
        bits = max(8, int(highest).bit_length())
        key, values = f"{bits} bits", f"16-bit values that never exceed {2**bits - 1}"
        tip = f"0,{2**bits - 1}"
    elif dtype.kind == "f" and 0 < highest <= DARK_FLOAT:
        key, values, tip = "floats", f"floats that never exceed {highest:.3g}, where 1 is white", f"0,{highest:.3g}"
    else:
        return
    with _lock:
        if key in _warned:
            return
        _warned.add(key)
    low, high = tip.split(",")
    warnings.warn(
        f"{what} holds {values}, so it is read as nearly black. If it is not meant to be dark, say what is white: "
        f"--range {tip} (Python: range=({low}, {high})). Said once for all such pictures.",
        stacklevel=2,
    )
