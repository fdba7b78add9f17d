"""What the header of a TIFF says of its values, beyond what Pillow and GDAL make of it; no pixel is decoded."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 256, 257, 258, 259, 262, 270
SAMPLES, MIN_VALUE, MAX_VALUE, PLANAR, EXTRA, FORMAT, S_MIN, S_MAX = 277, 280, 281, 284, 338, 339, 340, 341
SUBFILE, GDAL_METADATA, GDAL_NODATA = 254, 42112, 42113
MOST_PAGES = 64  # that are looked at for a mask
SIGNED, FLOAT = 2, 3
ASSOCIATED, UNASSOCIATED = 1, 2


@dataclass(frozen=True)
class Tags:
    """The first picture of a TIFF.

    bits            of a sample
    samples         per pixel
    format          of a sample: 1 unsigned, 2 signed, 3 float, others
    photometric     0 the smallest value is white, 1 it is black, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, …
    planar          samples are stored one band after the other
    compressed      by any method
    extra           what each sample beyond the colors is: 1 associated alpha, 2 unassociated alpha, 0 unspecified
    nodata          value of pixels without data, None where there is none
    limits          the values that are black and white where the file says so, else None
    masked          a page of it is a mask
    """

    bits: int
    samples: int
    format: int
    photometric: int
    planar: bool
    compressed: bool
    extra: tuple[int, ...]
    nodata: float | None
    limits: tuple[float, float] | None
    masked: bool

    @property
    def alpha(self) -> int | None:
        """Index of the alpha sample, None where there is none."""
        first = self.samples - len(self.extra)
        return next((first + i for i, kind in enumerate(self.extra) if kind in (ASSOCIATED, UNASSOCIATED)), None)

    @property
    def associated(self) -> bool:
        """Whether colors are stored multiplied by alpha."""
        return next((kind for kind in self.extra if kind in (ASSOCIATED, UNASSOCIATED)), 0) == ASSOCIATED


def read_tags(file: Path | BinaryIO) -> Tags | None:
    """Of a TIFF or BigTIFF; None for other files and for broken headers."""
    try:
        if isinstance(file, Path):
            with file.open("rb") as stream:
                return read_tags(stream)
        file.seek(0)
        pages = _pages(file)
        return None if not pages else parse(pages[0], any(page.get(SUBFILE, 0) & 4 for page in pages[1:]))
    except Exception:  # Pillow lets nearly any exception out of a broken header; opening the file says what it is
        return None


def parse(page: Any, masked: bool = False) -> Tags:
    """Of the tags of a page, a mapping from numbers to values as Pillow has it."""
    extra = _all(page, EXTRA)
    bits, form = int(_all(page, BITS, (1,))[0]), int(_all(page, FORMAT, (1,))[0])
    return Tags(
        bits=bits,
        samples=int(page.get(SAMPLES, 1)),
        format=form,
        photometric=int(page.get(PHOTOMETRIC, 1)),
        planar=page.get(PLANAR, 1) == 2,
        compressed=page.get(COMPRESSION, 1) != 1,
        extra=tuple(int(kind) for kind in extra),
        nodata=_number(page.get(GDAL_NODATA)),
        limits=_limits(page, bits, form),
        masked=masked,
    )


def _pages(file: BinaryIO) -> list[ImageFileDirectory_v2]:
    header = file.read(8)
    if header[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return []
    header += file.read(8) if header[2:4] in (b"+\0", b"\0+") else b""
    page = ImageFileDirectory_v2(header)
    pages: list[ImageFileDirectory_v2] = []
    offsets: set[int] = set()
    while page.next and page.next not in offsets and len(pages) < MOST_PAGES:
        offsets.add(page.next)
        file.seek(page.next)
        page = ImageFileDirectory_v2(header) if pages else page
        page.load(file)
        pages.append(page)
    return pages


def _all(page, tag: int, default: Sequence = ()) -> Sequence:
    value = page.get(tag, default)
    return value if isinstance(value, tuple) else (value,)


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip(" \0"))
    except ValueError:
        return None


def _limits(page, bits: int, form: int) -> tuple[float, float] | None:
    """Values of black and white: by the number of bits, the largest sample value, or what ImageJ, OME or GDAL note."""
    if form == 1 and bits <= 8:
        return None
    lows, highs = _all(page, S_MIN, (0,)), _all(page, S_MAX) or _all(page, MAX_VALUE)
    if highs:
        low, high = (float(min(lows)) if form != 1 else 0.0), float(max(highs))
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return None if form == 1 and high >= 2**bits - 1 else (low, high)
    text = str(page.get(DESCRIPTION, ""))
    if text.startswith("ImageJ="):
        ends = [re.search(rf"^{name}=([-+.\de]+)\s*$", text, re.MULTILINE) for name in ("min", "max")]
        black, white = (_number(end and end[1]) for end in ends)
        if black is not None and white is not None and black < white:
            return black, white
    if form == 1:
        notes = str(page.get(GDAL_METADATA, ""))
        count = re.search(r"SignificantBits=\"(\d+)\"", text) or re.search(r"name=\"NBITS\"[^>]*>\s*(\d+)\s*<", notes)
        used = int(count[1]) if count else bits
        if 1 <= used < bits or 8 < used < 16:
            return 0.0, 2.0**used - 1
    return None
