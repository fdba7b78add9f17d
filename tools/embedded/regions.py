"""Crops with a label for every pixel: photographs of ``coco_mini`` with pasted things, and drawn scenes.

Crops are S×S uint8 RGB with labels (S/8, S/8): names by index, 255 for none.
"""

import json

import cv2
import numpy as np

from ovseg.datasets.mini import data_folder
from ovseg.datasets.scenes import SceneComposer

NONE, CELL = 255, 8


def shrink(labels: np.ndarray) -> np.ndarray:
    """(S, S) → (S/8, S/8): the label at the middle of each cell."""
    return labels[CELL // 2 :: CELL, CELL // 2 :: CELL]


def jitter(rng: np.random.Generator, image: np.ndarray, strength: float) -> np.ndarray:
    """Brightness, contrast, saturation and hue's balance, each by a random factor."""
    x = image.astype(np.float32)
    gray = x.mean(-1, keepdims=True)
    x = gray + (x - gray) * np.float32(1 + strength * rng.uniform(-1, 1))
    x = x.mean() + (x - x.mean()) * np.float32(1 + strength * rng.uniform(-1, 1))
    x = x * (1 + strength * rng.uniform(-1, 1) + 0.3 * strength * rng.uniform(-1, 1, 3)).astype(np.float32)
    return np.clip(x, 0, 255).astype(np.uint8)


class CocoCrops:
    """Random crops of the training photographs.

    Args:
        size: side of a crop.
        shorter: smallest and largest length of the photograph's shorter side before cropping.
        paste: probability that things of another photograph are pasted.
        held: labels that are treated as unlabeled.
    """

    def __init__(self, size: int, shorter: tuple[int, int], paste: float, held: frozenset[int] = frozenset()):
        self.size, self.shorter, self.paste = size, shorter, paste
        folder = data_folder("coco_mini")
        panoptic = json.loads((folder / "panoptic_train.json").read_text())
        self.images, self.labels, self.things = [], [], []
        for record in sorted(panoptic["annotations"], key=lambda record: record["file_name"]):
            stem = record["file_name"].removesuffix(".png")
            image = cv2.imread(str(folder / "images" / "train" / f"{stem}.jpg"))[..., ::-1]
            label = cv2.imread(str(folder / "semantic" / "train" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
            ids = cv2.imread(str(folder / "panoptic" / "train" / record["file_name"]))[..., ::-1].astype(np.int64)
            ids = ids @ np.array([1, 256, 65536])
            label[np.isin(label, list(held))] = NONE
            segments = [(s["id"], label[ids == s["id"]][0]) for s in record["segments_info"] if (ids == s["id"]).any()]
            self.images.append(np.ascontiguousarray(image))
            self.labels.append(label)
            self.things.append((ids, [identity for identity, name in segments if name < 80]))
        where = {}
        for index, label in enumerate(self.labels):
            for name in np.unique(label[label != NONE]):
                where.setdefault(int(name), []).append(index)
        self.where = where
        self.odds = np.array([len(where[name]) ** -0.5 * len(where[name]) for name in sorted(where)])

    def __call__(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        name = int(rng.choice(sorted(self.where), p=self.odds / self.odds.sum()))
        index = int(rng.choice(self.where[name]))
        image, label = self._crop(rng, self.images[index], self.labels[index], name)
        if rng.random() < self.paste:
            for _ in range(rng.integers(1, 4)):
                self._paste(rng, image, label)
        if rng.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        return jitter(rng, image, 0.3), shrink(label)

    def _crop(self, rng, image, label, name):
        """A crop around a random pixel of ``name``; outside the photograph gray and unlabeled."""
        low, high = np.log(self.shorter)
        scale = np.exp(rng.uniform(low, high)) / min(label.shape)
        stretch = np.exp(rng.uniform(-0.12, 0.12))
        ys, xs = np.nonzero(label == name)
        pick = rng.integers(len(ys))
        sx, sy, s = scale * stretch, scale / stretch, self.size
        sides = np.array([label.shape[1] * sx, label.shape[0] * sy])
        corner = np.array([xs[pick] * sx, ys[pick] * sy]) - rng.uniform(0.15, 0.85, 2) * s
        slack = sides - s
        corner = np.where(slack > 0, np.clip(corner, 0, np.maximum(slack, 0)), slack * rng.uniform(0, 1, 2))
        matrix = np.array([[sx, 0, -corner[0]], [0, sy, -corner[1]]])
        reading = cv2.INTER_LINEAR if scale > 0.8 else cv2.INTER_AREA
        image = cv2.warpAffine(image, matrix, (s, s), flags=reading, borderValue=(124, 124, 124))
        label = cv2.warpAffine(label, matrix, (s, s), flags=cv2.INTER_NEAREST, borderValue=NONE)
        return image, label

    def _paste(self, rng, image, label):
        """Paste one thing of a random photograph at a random place."""
        index = int(rng.integers(len(self.images)))
        ids, segments = self.things[index]
        if not segments:
            return
        mask = (ids == segments[rng.integers(len(segments))]).astype(np.uint8)
        ys, xs = np.nonzero(mask)
        y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
        extent = max(y1 - y0, x1 - x0)
        name = self.labels[index][ys[0], xs[0]]
        if name == NONE or extent < 24:
            return
        scale = np.exp(rng.uniform(np.log(40), np.log(0.7 * self.size))) / extent
        scale = min(scale, 2.5)
        corner = rng.uniform(-0.2, 0.9, 2) * self.size
        flip = rng.choice([-1.0, 1.0])
        start = corner[0] - flip * scale * (x0 if flip > 0 else x1)
        matrix = np.array([[flip * scale, 0, start], [0, scale, corner[1] - scale * y0]])
        place = (self.size, self.size)
        there = cv2.warpAffine(mask, matrix, place, flags=cv2.INTER_NEAREST).astype(bool)
        pixels = cv2.warpAffine(self.images[index], matrix, place, flags=cv2.INTER_LINEAR)
        image[there], label[there] = pixels[there], name


class SceneCrops:
    """Drawn scenes of 128 px, enlarged to ``size``; labels index ``object_names() + stuff_names()``."""

    def __init__(self, size: int, held: frozenset[int] = frozenset()):
        self.size, self.held = size, list(held)
        self.composer = SceneComposer(128, (1, 5), (22, 72), "seen", "train", 0.7, 0.7, 0.2)

    def __call__(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        scene = self.composer(rng.integers(2**32, size=2).tolist())
        image = cv2.resize(scene.image, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        label = np.where(np.isin(scene.labels, self.held), NONE, scene.labels).astype(np.uint8)
        label = cv2.resize(label, (self.size, self.size), interpolation=cv2.INTER_NEAREST)
        return image, shrink(label)


class Mosaics:
    """Photographs in a grid: (S, S, 3) uint8 and, for each cell of 16 px, the number of its tile."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, rng: np.random.Generator, draw) -> tuple[np.ndarray, np.ndarray, list]:
        """``draw()`` gives (picture (s, s, 3) uint8, label); labels come back in the order of the tiles."""
        cells = self.size // 16
        canvas, tiles, labels = np.zeros((self.size, self.size, 3), np.uint8), np.zeros((cells, cells), np.int64), []
        rows, columns = (self._cuts(rng, cells) for _ in range(2))
        for top, bottom in zip(rows, rows[1:], strict=False):
            for left, right in zip(columns, columns[1:], strict=False):
                picture, label = draw()
                size = (16 * (right - left), 16 * (bottom - top))
                picture = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
                canvas[16 * top : 16 * bottom, 16 * left : 16 * right] = picture
                tiles[top:bottom, left:right] = len(labels)
                labels.append(label)
        return canvas, tiles, labels

    @staticmethod
    def _cuts(rng, cells: int) -> list[int]:
        """Borders of two or three bands, each of at least 4 cells."""
        count = int(rng.integers(2, 4))
        free = cells - 4 * count
        inner = np.sort(rng.integers(0, free + 1, count - 1)) + 4 * np.arange(1, count)
        return [0, *map(int, inner), cells]
