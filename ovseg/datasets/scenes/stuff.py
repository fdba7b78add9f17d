"""Procedural images of *stuff* (grass, brick wall, sea, …): every image is a pure function of its kind and seed.

Each recipe takes a random generator and a side length n in pixels and returns an (n, n, 3) float array in [0, 1].
"""

import cv2
import numpy as np


def noise(rng, n: int, cell: float, octaves: int = 1, aspect: float = 1.0) -> np.ndarray:
    """Smooth noise (n, n), about [-1, 1]: random grids of ``cell`` px, halved per octave, drawn out by aspect."""
    total, weight = np.zeros((n, n), np.float32), 1.0
    for _ in range(octaves):
        grid = rng.standard_normal((max(2, int(n / cell) + 2), max(2, int(n / (cell * aspect)) + 2)), np.float32)
        total += weight * cv2.resize(grid, (n, n), interpolation=cv2.INTER_CUBIC)
        cell, weight = max(1.0, cell / 2), weight / 2
    return total / 2


def paint(rng, shade: np.ndarray, low, high, jitter: float = 0.06) -> np.ndarray:
    """Color a (n, n) map in [-1, 1] between two RGB colors, both shifted at random by ``jitter``."""
    low, high = (np.asarray(c, np.float32) + rng.uniform(-jitter, jitter, 3) for c in (low, high))
    t = np.clip(shade * 0.5 + 0.5, 0, 1)[..., None]
    return np.clip(low * (1 - t) + high * t, 0, 1).astype(np.float32)


def lattice(rng, n: int, height: float, width: float, shift: float, gap: float):
    """Rows of blocks: (n, n) mask of the gaps between them and (n, n) random value in [-1, 1] per block."""
    y, x = np.mgrid[:n, :n].astype(np.float32)
    row = np.floor(y / height).astype(int)
    x = x + shift * width * row + rng.uniform(0, width)
    column = np.floor(x / width).astype(int)
    gaps = ((y % height) < gap) | ((x % width) < gap)
    values = rng.uniform(-1, 1, (row.max() + 1, column.max() + 1)).astype(np.float32)
    return gaps, values[row, column]


def cells(rng, n: int, spacing: float):
    """Voronoi cells of jittered points: distance to the border (n, n) and random value in [-1, 1] per cell."""
    m = int(n / spacing) + 2
    points = (np.stack(np.mgrid[:m, :m], -1).reshape(-1, 2) + rng.uniform(-0.4, 0.4, (m * m, 2))) * spacing
    y, x = np.mgrid[:n, :n].astype(np.float32)
    first, second = np.full((n, n), 1e9, np.float32), np.full((n, n), 1e9, np.float32)
    nearest = np.zeros((n, n), int)
    for i, (py, px) in enumerate(points):
        distance = np.hypot(y - py, x - px).astype(np.float32)
        nearer = distance < first
        second = np.where(nearer, first, np.minimum(second, distance))
        nearest[nearer] = i
        first = np.where(nearer, distance, first)
    return second - first, rng.uniform(-1, 1, len(points)).astype(np.float32)[nearest]


def grass(rng, n):
    blades = noise(rng, n, rng.uniform(6, 10), 3, aspect=0.25)
    return paint(rng, blades * 1.2 + 0.3 * noise(rng, n, 40), (0.12, 0.32, 0.08), (0.50, 0.75, 0.25))


def sky(rng, n):
    y = np.linspace(-1, 1, n, dtype=np.float32)[:, None]
    picture = paint(rng, y + np.zeros((n, n), np.float32), (0.30, 0.55, 0.90), (0.70, 0.86, 0.98))
    cloud = np.clip(noise(rng, n, rng.uniform(25, 60), 4, aspect=1.8) * 1.5 - rng.uniform(-0.2, 0.6), 0, 1)[..., None]
    return picture * (1 - cloud) + cloud * 0.97


def sea(rng, n):
    y, x = np.mgrid[:n, :n].astype(np.float32)
    period = rng.uniform(6, 14)
    waves = np.sin(2 * np.pi * (y + 5 * noise(rng, n, 24, 2, aspect=2)) / period)
    return paint(rng, 0.6 * waves + 0.5 * noise(rng, n, 6, 2, aspect=4), (0.02, 0.22, 0.42), (0.25, 0.65, 0.75))


def sand(rng, n):
    ripple = np.sin(2 * np.pi * (np.mgrid[:n, :n][0] + 10 * noise(rng, n, 40, 2)) / rng.uniform(14, 26))
    return paint(rng, 0.35 * ripple + 0.5 * noise(rng, n, 1.5), (0.72, 0.58, 0.36), (0.95, 0.86, 0.66))


def snow(rng, n):
    return paint(
        rng, noise(rng, n, rng.uniform(24, 50), 3) + 0.15 * noise(rng, n, 2), (0.80, 0.86, 0.95), (1, 1, 1), 0.03
    )


def brick_wall(rng, n):
    height = rng.uniform(8, 13)
    gaps, value = lattice(rng, n, height, height * rng.uniform(1.9, 2.5), 0.5, rng.uniform(1.2, 2.2))
    bricks = paint(rng, 0.7 * value + 0.4 * noise(rng, n, 3, 2), (0.45, 0.16, 0.10), (0.78, 0.38, 0.26))
    return np.where(gaps[..., None], paint(rng, noise(rng, n, 3), (0.62, 0.58, 0.54), (0.80, 0.77, 0.72)), bricks)


def stone_wall(rng, n):
    border, value = cells(rng, n, rng.uniform(16, 26))
    stones = paint(rng, 0.6 * value + 0.5 * noise(rng, n, 6, 3), (0.32, 0.31, 0.30), (0.72, 0.70, 0.66))
    return np.where((border < 2.2)[..., None], np.float32(rng.uniform(0.12, 0.25)), stones)


def wood_floor(rng, n):
    gaps, value = lattice(rng, n, rng.uniform(12, 20), rng.uniform(60, 110), 0.37, 1.0)
    grain = noise(rng, n, 4, 2, aspect=14)
    wood = paint(rng, 0.5 * value + 0.6 * grain, (0.42, 0.25, 0.12), (0.80, 0.58, 0.34))
    return np.where(gaps[..., None], wood * 0.45, wood)


def road(rng, n):
    asphalt = paint(
        rng, 0.6 * noise(rng, n, 1.3) + 0.4 * noise(rng, n, 30, 2), (0.20, 0.20, 0.22), (0.46, 0.46, 0.47), 0.04
    )
    x = np.mgrid[:n, :n][1]
    period, offset = rng.uniform(70, 120), rng.uniform(0, 120)
    dashes = ((x + offset) % period < rng.uniform(3, 6)) & ((np.mgrid[:n, :n][0] + offset) % 40 < 24)
    return np.where(dashes[..., None], np.float32(0.9), asphalt)


def gravel(rng, n):
    border, value = cells(rng, n, rng.uniform(6, 8.5))
    pebbles = paint(rng, 0.9 * value + 0.2 * noise(rng, n, 3), (0.42, 0.38, 0.34), (0.86, 0.82, 0.76))
    return pebbles * np.clip(0.35 + border / 3.0, 0, 1)[..., None]


def tiles(rng, n):
    side = rng.uniform(14, 24)
    gaps, value = lattice(rng, n, side, side, 0.0, rng.uniform(1.2, 2.0))
    colors = [(0.85, 0.90, 0.92), (0.55, 0.80, 0.82), (0.92, 0.88, 0.78), (0.60, 0.70, 0.88)]
    base = np.asarray(colors[rng.integers(len(colors))])
    glaze = paint(rng, 0.4 * value + 0.3 * noise(rng, n, 20), base * 0.85, base * 1.05, 0.04)
    return np.where(gaps[..., None], np.float32(rng.uniform(0.45, 0.7)), glaze)


def rug(rng, n):
    y, x = np.mgrid[:n, :n].astype(np.float32)
    side = rng.uniform(22, 36)
    diamonds = np.abs((x % side) / side - 0.5) + np.abs((y % side) / side - 0.5)
    picture = paint(rng, np.sign(np.sin(diamonds * rng.uniform(14, 20))), (0.50, 0.06, 0.12), (0.90, 0.70, 0.36), 0.1)
    return picture * (0.85 + 0.15 * np.sign(np.sin(x * 2.1) * np.sin(y * 2.1)))[..., None]


def curtain(rng, n):
    x = np.mgrid[:n, :n][1] + 4 * noise(rng, n, 60, 1, aspect=0.2)
    folds = np.sin(2 * np.pi * x / rng.uniform(14, 24))
    hue = rng.choice([(0.55, 0.12, 0.30), (0.25, 0.20, 0.55), (0.60, 0.45, 0.62), (0.70, 0.30, 0.20)])
    return paint(rng, folds + 0.1 * noise(rng, n, 2), np.asarray(hue) * 0.45, np.asarray(hue) * 1.3, 0.05)


def dirt(rng, n):
    clods = noise(rng, n, rng.uniform(10, 18), 4)
    return paint(rng, 1.1 * clods + 0.3 * noise(rng, n, 1.5), (0.20, 0.12, 0.06), (0.55, 0.40, 0.26))


def leaves(rng, n):
    border, value = cells(rng, n, rng.uniform(9, 13))
    picture = paint(rng, value + 0.2 * noise(rng, n, 3), (0.03, 0.20, 0.08), (0.35, 0.62, 0.16))
    return picture * np.clip(0.3 + border / 5.0, 0, 1)[..., None]


def fence(rng, n):
    y, x = np.mgrid[:n, :n].astype(np.float32)
    width = rng.uniform(12, 18)
    plank = ((x % width) / width) < rng.uniform(0.55, 0.7)
    rail = ((y + rng.uniform(0, 60)) % rng.uniform(45, 70)) < 7
    wood = paint(rng, 0.4 * noise(rng, n, 8, 2, aspect=0.1), (0.75, 0.72, 0.66), (0.97, 0.96, 0.93), 0.05)
    behind = paint(rng, noise(rng, n, 8, 2), (0.10, 0.22, 0.10), (0.25, 0.42, 0.22))
    return np.where((plank | rail)[..., None], wood, behind)


def blanket(rng, n):
    y, x = np.mgrid[:n, :n].astype(np.float32)
    side = rng.uniform(14, 26)
    bands = ((x % side) < side / 2).astype(np.float32) + ((y % side) < side / 2)
    dark = rng.choice([(0.75, 0.10, 0.12), (0.10, 0.25, 0.62), (0.10, 0.45, 0.25)])
    return paint(rng, bands - 1 + 0.1 * noise(rng, n, 1.5), dark, (0.97, 0.96, 0.94), 0.05)


def metal(rng, n):
    brushed = noise(rng, n, 1.5, 1, aspect=60) + 0.6 * noise(rng, n, 60, 1)
    y, x = np.mgrid[:n, :n].astype(np.float32)
    picture = paint(rng, 0.7 * brushed, (0.45, 0.48, 0.52), (0.86, 0.88, 0.90), 0.03)
    side = rng.uniform(34, 50)
    rivet = np.hypot(x % side - side / 2, y % side - side / 2) < 2.6
    return np.where(rivet[..., None], np.float32(0.25), picture)


RECIPES = {
    f.__name__.replace("_", " "): f
    for f in (
        grass,
        sky,
        sea,
        sand,
        snow,
        brick_wall,
        stone_wall,
        wood_floor,
        road,
        gravel,
        tiles,
        rug,
        curtain,
        dirt,
        leaves,
        fence,
        blanket,
        metal,
    )
}


def picture(kind: str, seed: int, n: int = 192) -> np.ndarray:
    """One uint8 RGB image (n, n, 3) of a kind of stuff; ``KeyError`` for an unknown kind."""
    rng = np.random.default_rng([sorted(RECIPES).index(kind), seed])
    return np.uint8(255 * np.clip(RECIPES[kind](rng, n), 0, 1) + 0.5)
