"""Text for pictures: a font that is always there, and a way around characters that it lacks."""

import importlib.util
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import cast

from PIL import Image, ImageDraw, ImageFont

# Faces tried for what the first font lacks (Chinese, Japanese, Korean), as the common systems name them.
_SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "Arial Unicode.ttf",
    "Hiragino Sans GB.ttc",
    "msyh.ttc",
)
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn"}  # controls, joiners, surrogates, private use, unassigned


@lru_cache(maxsize=1)
def _main_font() -> str | None:
    spec = importlib.util.find_spec("matplotlib")  # locates the package without importing it
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            return str(path)
    return None


@lru_cache(maxsize=1)
def _system_fonts() -> tuple[str, ...]:
    paths = []
    for name in _SYSTEM_FONTS:
        try:
            font = ImageFont.truetype(name, 10)  # Pillow looks through the folders of the system, slowly
            paths.append(str(font.path))
        except OSError:
            continue
    return tuple(paths)


@lru_cache(maxsize=128)
def load_font(size: int, index: int = 0) -> ImageFont.FreeTypeFont:
    """Font of a height in pixels: 0 is DejaVu Sans, which comes with matplotlib, or else the one inside Pillow; from 1
    on whatever of ``_SYSTEM_FONTS`` this machine has."""
    path = _system_fonts()[index - 1] if index else _main_font()
    if path:
        return ImageFont.truetype(path, size)
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size))  # with a size it is never the bitmap font


class Text:
    """One line of text that can be measured, shortened and drawn, whatever characters it holds.

    Characters that no font has are written as U+XXXX; joiners, variation selectors and other invisible ones are
    dropped, line breaks and tabs become spaces.

    Attributes:
        width: advance in pixels.
    """

    def __init__(self, text: str, size: int, max_width: float | None = None):
        self.size = size
        self.runs = _runs(text, size)
        self.width = self._measure(self.runs)
        if max_width is not None and self.width > max_width:
            plain = "".join(part for part, _ in self.runs)
            low, high = 0, len(plain)
            while low < high:  # the longest beginning that fits with its ellipsis
                middle = (low + high + 1) // 2
                fits = self._measure(_runs(plain[:middle].rstrip() + "…", size)) <= max_width
                low, high = (middle, high) if fits else (low, middle - 1)
            self.runs = _runs(plain[:low].rstrip() + "…", size)
            self.width = self._measure(self.runs)

    def draw(self, canvas: ImageDraw.ImageDraw, x: float, middle: float, color: tuple[int, int, int]) -> None:
        """Draw from ``x`` on, capitals centered on the height ``middle``."""
        box = load_font(self.size).getbbox("H", anchor="ls")
        baseline = round(middle - (box[1] + box[3]) / 2)
        for part, index in self.runs:
            canvas.text((round(x), baseline), part, fill=color, font=load_font(self.size, index), anchor="ls")
            x += load_font(self.size, index).getlength(part)

    def _measure(self, runs: list[tuple[str, int]]) -> int:
        return round(sum(load_font(self.size, index).getlength(part) for part, index in runs))


def _runs(text: str, size: int) -> list[tuple[str, int]]:
    """Pieces of text that one font can draw, each with the place of its font."""
    runs: list[tuple[str, int]] = []
    for character in text:
        part, index = _glyph(character, size)
        if part and runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0] + part, index)
        elif part:
            runs.append((part, index))
    return runs


@lru_cache(maxsize=4096)
def _glyph(character: str, size: int) -> tuple[str, int]:
    if character.isspace():
        return " ", 0
    escape = f"U+{ord(character):04X}"
    if unicodedata.category(character) in _INVISIBLE or 0xFE00 <= ord(character) <= 0xFE0F:
        return ("" if unicodedata.category(character) in ("Cc", "Cf", "Mn") else escape), 0
    if _has_glyph(load_font(size), character):
        return character, 0
    for index in range(1, len(_system_fonts()) + 1):
        if _has_glyph(load_font(size, index), character):
            return character, index
    return escape, 0


def _has_glyph(font: ImageFont.FreeTypeFont, character: str) -> bool:
    return _picture(font, character) != _picture(font, "\uffff")  # no character: every font shows its empty box


def _picture(font: ImageFont.FreeTypeFont, character: str) -> bytes:
    side = round(3 * font.size)
    image = Image.new("L", (side, side))
    ImageDraw.Draw(image).text((font.size, font.size), character, fill=255, font=font)
    return image.tobytes()
