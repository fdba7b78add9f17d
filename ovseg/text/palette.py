"""Class colors that stay apart, also for color-blind readers.

The first seven are the colors of Okabe and Ito ("Color Universal Design", 2008) without their black, which gives way
to the gray of the background. The following 57 are picked one after another, each the candidate farthest (CIE76
distance in CIELAB) from every color before it and from that gray. Beyond 64, hue turns by the golden angle while
lightness and chroma cycle, and only exact repeats are avoided: nobody distinguishes a thousand colors by eye.

``palette(n)`` is a prefix of ``palette(m)`` for n < m, so adding classes never recolors the earlier ones. For n <= 20
any two colors, and any color and the gray, are at least ``MIN_DISTANCE_20`` apart (about 2.3 is just visible).
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

RGB = tuple[int, int, int]

BACKGROUND_GRAY: RGB = (128, 128, 128)  # never given to another class; stands for "none of the words"
MIN_DISTANCE_20 = 26.0

OKABE_ITO: tuple[RGB, ...] = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (0, 114, 178),  # blue
    (213, 94, 0),  # vermillion
    (204, 121, 167),  # reddish purple
)

_SPREAD = 64  # how many colors are placed by distance before the golden-angle tail
_WHITE = (0.95047, 1.0, 1.08883)  # D65
_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))


@lru_cache(maxsize=32)
def palette(n: int) -> tuple[RGB, ...]:
    """The first n class colors as (r, g, b) integers in 0..255, none of them the background gray.

    Raises:
        ValueError: n is negative.
    """
    if n < 0:
        raise ValueError(f"a palette needs a number of colors >= 0, got {n}.")
    spread = _spread_colors()
    if n <= len(spread):
        return spread[:n]
    colors, taken = list(spread), {*spread, BACKGROUND_GRAY}
    for color in _golden_colors():
        if color not in taken:
            taken.add(color)
            colors.append(color)
        if len(colors) == n:
            break
    return tuple(colors)


def as_color(value: Any, name: str) -> RGB:
    """(r, g, b) of a triple of integers or "#rrggbb"; ``name`` is the class an error speaks of."""
    if isinstance(value, str) and len(value) == 7 and value[0] == "#":
        try:
            return tuple(bytes.fromhex(value[1:]))
        except ValueError:
            pass
    elif isinstance(value, (list, tuple)) and len(value) == 3:
        if all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in value):
            return tuple(value)
    raise ValueError(f"the color of class {name!r} is {value!r}; expected three integers in 0..255 or '#rrggbb'.")


def color_distance(a: RGB, b: RGB) -> float:
    """CIE76 distance of two sRGB colors: Euclidean in CIELAB under D65."""
    return math.dist(_lab(a), _lab(b))


@lru_cache(maxsize=1)
def _spread_colors() -> tuple[RGB, ...]:
    chosen = list(OKABE_ITO)
    candidates = [(color, _lab(color)) for color in _grid_colors()]
    anchors = [_lab(color) for color in (*chosen, BACKGROUND_GRAY)]
    nearest = [min(math.dist(lab, anchor) for anchor in anchors) for _, lab in candidates]
    while len(chosen) < _SPREAD:
        best = max(range(len(candidates)), key=nearest.__getitem__)
        color, best_lab = candidates[best]
        chosen.append(color)
        nearest = [min(old, math.dist(lab, best_lab)) for old, (_, lab) in zip(nearest, candidates, strict=True)]
    return tuple(chosen)


def _grid_colors() -> Iterator[RGB]:
    """Candidates: an even grid of sRGB without near-black and near-white, which vanish on dark or bright photos."""
    steps = range(0, 256, 32)
    for r in (*steps, 255):
        for g in (*steps, 255):
            for b in (*steps, 255):
                if 25.0 <= _lab((r, g, b))[0] <= 92.0:
                    yield (r, g, b)


def _golden_colors() -> Iterator[RGB]:
    """Endless colors: hue by the golden angle, lightness and chroma in two cycles of coprime length."""
    lightness, chroma = (62.0, 45.0, 78.0, 36.0, 70.0, 54.0, 86.0), (60.0, 38.0, 75.0, 25.0, 50.0)
    turn = 0
    while True:
        # the slow drift keeps later rounds from landing on the pixels of earlier ones
        drift = 7.0 * math.sin(turn * 0.137)
        hue = turn * _GOLDEN_ANGLE
        c = chroma[turn % len(chroma)] + drift
        yield _rgb(lightness[turn % len(lightness)] - drift, c * math.cos(hue), c * math.sin(hue))
        turn += 1


def _lab(color: RGB) -> tuple[float, float, float]:
    def linear(value: int) -> float:
        v = value / 255.0
        return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4

    def curve(t: float) -> float:
        return t ** (1.0 / 3.0) if t > 216.0 / 24389.0 else (24389.0 / 27.0 * t + 16.0) / 116.0

    r, g, b = (linear(v) for v in color)
    x = curve((0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / _WHITE[0])
    y = curve((0.2126729 * r + 0.7151522 * g + 0.0721750 * b) / _WHITE[1])
    z = curve((0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / _WHITE[2])
    return 116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)


def _rgb(lightness: float, a: float, b: float) -> RGB:
    """Nearest sRGB color; out-of-gamut channels are clipped."""

    def uncurve(t: float) -> float:
        return t**3 if t**3 > 216.0 / 24389.0 else (116.0 * t - 16.0) * 27.0 / 24389.0

    def encode(v: float) -> int:
        v = min(max(v, 0.0), 1.0)
        v = 12.92 * v if v <= 0.0031308 else 1.055 * v ** (1.0 / 2.4) - 0.055
        return round(255.0 * v)

    fy = (lightness + 16.0) / 116.0
    x, y, z = (w * uncurve(t) for w, t in zip(_WHITE, (fy + a / 500.0, fy, fy - b / 200.0), strict=True))
    return (
        encode(3.2404542 * x - 1.5371385 * y - 0.4985314 * z),
        encode(-0.9692660 * x + 1.8760108 * y + 0.0415560 * z),
        encode(0.0556434 * x - 0.2040259 * y + 1.0572252 * z),
    )
