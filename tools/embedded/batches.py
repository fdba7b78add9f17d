"""One training batch as a function of (seed, step): photographs, mosaics, labeled crops, and the words they need.

Even steps draw their photographs from ``objects64`` and are told names by a random cut of WordNet's tree; odd steps
draw from ``scenes32``, and bring drawn scenes.  Crops of ``coco_mini`` come with every step.
"""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from hierarchy import Hierarchy
from regions import CocoCrops, Mosaics, SceneCrops, jitter
from teachers import MEAN, STD
from torch import Tensor
from words import Words, pick


@dataclass
class Batch:
    """What a step computes on.

    photos, mosaics   (n, 3, s, s), (m, 3, S, S) normalized
    tiles             (m, S/16, S/16) number of the photograph that a cell shows
    photo_targets     (n + tiles, K) soft targets over ``photo_words``; a row without a teacher's share holds the label
    photo_words       K phrases
    levels            (1000, K) which ImageNet class belongs to which word (``objects64`` only)
    asked             (n + tiles,) whether a teacher's share is in the target
    crops             by source (``coco``, ``scenes``): images (b, 3, S, S), labels (b, S/8, S/8), phrases
    """

    photos: Tensor
    mosaics: Tensor
    tiles: Tensor
    photo_targets: Tensor
    photo_words: list[str]
    levels: Tensor | None
    asked: Tensor
    crops: dict[str, tuple[Tensor, Tensor, list[str]]] = field(default_factory=dict)


def normalize(images: list[np.ndarray]) -> Tensor:
    """(H, W, 3) uint8 pictures → (n, 3, H, W)."""
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class Batches:
    """``batch(step)``.

    Args:
        folder: arrays written by ``photos.py``.
        words: names of all labels.
        tree: names of ImageNet's classes at every level.
        config: sizes and counts, see ``configs/embedded``.
        seed: of everything random.
    """

    def __init__(self, folder: Path, words: Words, tree: Hierarchy, config: dict, seed: int):
        self.words, self.tree, self.config, self.seed = words, tree, config, seed
        kinds = ("objects64", "scenes32")
        self.pictures = [np.load(folder / f"{kind}_train.npy", mmap_mode="r") for kind in kinds]
        self.labels = [np.load(folder / f"{kind}_train_labels.npy") for kind in kinds]
        self.teacher = np.load(folder / "teacher.npy", mmap_mode="r")
        side, held = config["crop"], words.held
        self.coco = CocoCrops(side, config["shorter"], config["paste"], held["coco"])
        self.scenes, self.mosaics = SceneCrops(side, held["scenes"]), Mosaics(side)

    def batch(self, step: int) -> Batch:
        rng, c, kind = np.random.default_rng([self.seed, step]), self.config, step % 2
        drawn: list[int] = []

        def draw() -> tuple[np.ndarray, int]:
            index = int(rng.integers(len(self.labels[kind])))
            return self._vary(rng, self.pictures[kind][index]), index

        side = int(rng.choice(c["sides"]))
        photos = []
        for _ in range(round(c["photos"] * (160 / side) ** 2)):
            picture, index = draw()
            photos.append(cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC))
            drawn.append(index)
        canvases, tiles, first = [], [], 0
        for _ in range(c["mosaics"]):
            canvas, tile, indices = self.mosaics(rng, draw)
            canvases.append(canvas)
            tiles.append(tile + first)
            drawn += indices
            first += len(indices)
        words, targets, levels, asked = (self._objects, self._rooms)[kind](rng, np.array(drawn))
        images = normalize(photos), normalize(canvases)
        batch = Batch(*images, torch.from_numpy(np.stack(tiles)), targets, words, levels, asked)
        for name, source, count in (("coco", self.coco, c["coco"]), ("scenes", self.scenes, c["scenes"] * kind)):
            if count:
                images, labels = zip(*(source(rng) for _ in range(count)), strict=True)
                groups = getattr(self.words, name)
                phrases = pick(rng, [g if i not in self.words.held[name] else [""] for i, g in enumerate(groups)])
                batch.crops[name] = normalize(images), torch.from_numpy(np.stack(labels)).long(), phrases
        return batch

    @staticmethod
    def _vary(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
        """A crop of at least three quarters of each side, perhaps mirrored, colors changed a little."""
        side = len(picture)
        h, w = rng.integers(round(0.75 * side), side + 1, 2)
        y, x = rng.integers(side - h + 1), rng.integers(side - w + 1)
        part = picture[y : y + h, x : x + w]
        return jitter(rng, part[:, ::-1] if rng.random() < 0.5 else part, 0.2)

    def _objects(self, rng, indices: np.ndarray) -> tuple[list[str], Tensor, Tensor, Tensor]:
        """Names of a cut and targets: half the label, half the teacher (where it was asked)."""
        classes = torch.tensor([self.words.objects[label] for label in self.labels[0][indices]])
        nodes = self.tree.cut(rng, set(classes.tolist()), self.config["cut"])
        table = self.tree.targets(nodes)
        hard = table[classes]
        soft = torch.from_numpy(self.teacher[indices]).float().softmax(-1) @ table
        soft = soft / soft.sum(-1, keepdim=True).clamp_min(1e-6)
        asked = soft.isfinite().all(-1, keepdim=True)
        targets = torch.where(asked, 0.5 * hard + 0.5 * soft, hard)
        return self.tree.names(rng, nodes), targets, table, asked[:, 0]

    def _rooms(self, rng, indices: np.ndarray) -> tuple[list[str], Tensor, None, Tensor]:
        groups = [[n for n in group if n.lower() not in self.words.banned] for group in self.words.rooms]
        kept = [i for i, group in enumerate(groups) if group]
        labels = torch.from_numpy(self.labels[1][indices])
        targets = torch.eye(len(groups))[labels][:, kept]
        return pick(rng, [groups[i] for i in kept]), targets, None, torch.ones(len(labels), dtype=torch.bool)
