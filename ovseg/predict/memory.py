"""Bytes: as people write them, and how many this process holds."""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg.refine import LabelRefiner, MapRefiner

if TYPE_CHECKING:
    from .pipeline import Pipeline

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def read_bytes(text: str | int) -> int:
    """Bytes of ``"2GB"``, ``"800 MB"``, ``"1.5GiB"`` or a plain number; letter case is ignored.

    Raises:
        ValueError: anything else, or less than one byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", str(text).lower())
    size = int(float(match[1]) * UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise ValueError(f"an amount of memory is written 2GB, 800MB, 1.5GiB or as a number of bytes, got {text!r}.")
    return size


def as_text(size: int) -> str:
    """``"1.31 GB"``, ``"640 MB"``: rounded up, so that what it says is enough."""
    if size >= 10**9:
        return f"{-(-size // 10**7) / 100:.2f} GB"
    return f"{-(-size // 10**6)} MB"


def reading_of(pipeline: "Pipeline") -> dict:
    """Arguments of ``load_image`` for pictures that a pipeline is to see."""
    protocol = pipeline.protocol
    return {"range": protocol.range, "bands": protocol.bands, "per_pixel": bytes_per_pixel(pipeline)}


def bytes_per_pixel(pipeline: "Pipeline") -> float:
    """What segmenting a picture whole takes at its peak, per pixel of the picture and without what does not grow with
    it (measured on pictures of 4 and 16 megapixels, rounded up): the picture, its labels and scores as they are made
    and drawn; colors and affinities of refiners; where the picture is not resized, its floats and the kept features."""
    protocol, tower = pipeline.protocol, pipeline.tower
    size = 48.0
    size += 200 if any(isinstance(refiner, MapRefiner) for refiner in pipeline.refiners) else 0
    size += 64 if any(isinstance(refiner, LabelRefiner) for refiner in pipeline.refiners) else 0
    if protocol.short_side is None and protocol.size is None:
        overlap = 1.0 if protocol.window is None else (protocol.window / protocol.stride) ** 2
        zoom = protocol.view / protocol.window if protocol.view and protocol.window else 1.0
        size += 36 + 8 * overlap * tower.embed_dim * (zoom / tower.stride) ** 2
    return size


def resident() -> int:
    """Bytes of memory that this process has now; where the system does not report that, its peak."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
