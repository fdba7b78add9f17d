"""How good an image-text model is on photographs: top-1 of small pictures and mIoU on ``coco_mini`` and drawn scenes.

A model is two functions: ``dense(images (B, 3, H, W) normalized, stride) → (B, h, w, E)`` and ``words(phrases) →
(K, E)`` unit vectors.  Protocols: ``full``, all names; ``v20``, a picture's own names and others drawn with its index
as seed, up to 20.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from batches import normalize
from photos import enlarge
from photos import names as photo_names
from teachers import MEAN, STD
from torch import Tensor

from ovseg.datasets.mini import data_folder
from ovseg.datasets.scenes import SceneComposer
from ovseg.datasets.scenes import candidates as scene_candidates

THINGS, OBJECTS, FIRST_SCENE = 80, 94, 1_000_000


@dataclass
class Model:
    dense: Callable[[Tensor, int], Tensor]
    words: Callable[[list[str]], Tensor]


class Confusion:
    """Pixel counts by class; ``means`` are the mIoU in percent over classes that occur, all and by part.

    Args:
        total: number of classes.
        parts: name → class ids.
    """

    def __init__(self, total: int, parts: dict[str, list[int]]):
        self.total, self.parts = total, {"mIoU": range(total)} | parts
        self.both, self.label, self.predicted = (np.zeros(total) for _ in range(3))

    def add(self, label: np.ndarray, predicted: np.ndarray):
        known = label < self.total
        label, predicted = label[known], predicted[known]
        self.both += np.bincount(label[label == predicted], minlength=self.total)
        self.label += np.bincount(label, minlength=self.total)
        self.predicted += np.bincount(predicted, minlength=self.total)

    def means(self) -> dict[str, float]:
        union = self.label + self.predicted - self.both
        iou = np.where(self.label > 0, 100 * self.both / np.maximum(union, 1), np.nan)
        return {name: round(float(np.nanmean(iou[list(ids)])), 2) for name, ids in self.parts.items() if len(ids)}


def candidates(label: np.ndarray, total: int, seed: int, count: int = 20) -> np.ndarray:
    """v20: sorted ids of the present classes and of random others up to ``count``."""
    present = np.unique(label[label < total])
    others = np.setdiff1d(np.arange(total), present)
    drawn = np.random.default_rng(seed).choice(others, max(0, count - len(present)), replace=False)
    return np.sort(np.concatenate([present, drawn]))


@torch.inference_mode()
def top1(model: Model, folder: Path, kind: str, names: list[str], side: int, share: int = 1) -> float:
    """Top-1 in percent on every ``share``-th held-back photograph, enlarged to ``side``; whole picture, stride 32."""
    pictures = np.load(folder / f"{kind}_val.npy", mmap_mode="r")[::share]
    labels = torch.from_numpy(np.load(folder / f"{kind}_val_labels.npy"))[::share]
    words, right = model.words(names), 0
    for start in range(0, len(labels), 50):
        x = enlarge(pictures[start : start + 50], side)
        x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        embedding = model.dense(x, 32).mean((1, 2))
        right += int(((embedding @ words.T).argmax(1) == labels[start : start + 50]).sum())
    return round(100 * right / len(labels), 2)


def resized(image: np.ndarray, shorter: int, multiple: int = 32) -> np.ndarray:
    """Shorter side about ``shorter``, both sides multiples of ``multiple``."""
    scale = shorter / min(image.shape[:2])
    h, w = (max(multiple, multiple * round(scale * side / multiple)) for side in image.shape[:2])
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def similarities(model: Model, image: np.ndarray, words: Tensor, shorter: int, stride: int, flip: bool) -> Tensor:
    """Cosines (1, K, h, w) of one picture (H, W, 3) uint8."""
    x = normalize([resized(image, shorter)])
    maps = []
    for mirrored in (False, True)[: 1 + flip]:
        features = F.normalize(model.dense(x.flip(-1) if mirrored else x, stride), dim=-1)
        maps.append((features.flip(2) if mirrored else features) @ words.T)
    return (sum(maps) / len(maps)).permute(0, 3, 1, 2)


def predict(maps: Tensor, names: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Arg-max among ``names`` at ``size``, bilinear."""
    chosen = F.interpolate(maps[:, torch.from_numpy(names)], size, mode="bilinear", align_corners=False)
    return names[chosen[0].argmax(0).numpy()]


def coco_val() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures (H, W, 3) uint8 RGB and labels (H, W), in the order of the file names."""
    folder = data_folder("coco_mini")
    files = sorted((folder / "images" / "val").glob("*.jpg"))
    semantic = folder / "semantic" / "val"
    return [
        (cv2.imread(str(f))[..., ::-1], cv2.imread(str(semantic / f"{f.stem}.png"), cv2.IMREAD_UNCHANGED))
        for f in files
    ]


@torch.inference_mode()
def coco(model: Model, names: list[str], held=(), shorter=448, stride=16, flip=False, step=1, share=1) -> dict:
    """``v20``, ``full`` and chance → means; labels of every ``step``-th pixel of every ``share``-th picture."""
    total = len(names)
    parts = {"things": list(range(THINGS)), "stuff": list(range(THINGS, total)), "held": sorted(held)}
    parts["others"] = [i for i in range(total) if i not in held] if held else []
    counts = {name: Confusion(total, parts) for name in ("v20", "full", "chance v20", "chance full")}
    words, rng = model.words(names), np.random.default_rng(0)
    for index, (image, label) in enumerate(coco_val()):
        if index % share:
            continue
        maps = similarities(model, image, words, shorter, stride, flip)
        allowed = {"v20": candidates(label, total, index), "full": np.arange(total)}
        label = label[::step, ::step]
        for protocol, chosen in allowed.items():
            counts[protocol].add(label, predict(maps, chosen, label.shape))
            counts[f"chance {protocol}"].add(label, rng.choice(chosen, label.shape))
    return {name: count.means() for name, count in counts.items()}


@torch.inference_mode()
def scenes(model: Model, names: list[str], count=100, styles="seen", shorter=320, stride=16, flip=False) -> dict:
    """``v20`` and ``full`` on held-out scenes of 128 px."""
    composer, total = SceneComposer(styles=styles), len(names)
    parts = {"objects": list(range(OBJECTS)), "stuff": list(range(OBJECTS, total))}
    counts, words = {name: Confusion(total, parts) for name in ("v20", "full")}, model.words(names)
    for seed in range(FIRST_SCENE, FIRST_SCENE + count):
        scene = composer(seed)
        maps = similarities(model, scene.image, words, shorter, stride, flip)
        for protocol, confusion in counts.items():
            chosen = np.array(scene_candidates(scene.labels, protocol, seed))
            confusion.add(scene.labels, predict(maps, chosen, scene.labels.shape))
    return {name: confusion.means() for name, confusion in counts.items()}


def quick(learner, corpus, words, folder: Path, joint: bool) -> dict:
    """A few figures during training: bare names, part of the pictures; the text tower's words if ``joint``."""

    def encode(names: list[str]) -> Tensor:
        return learner.words([corpus.phrases.row(name) for name in names]) if joint else corpus.vectors(names)

    model = Model(learner.features, encode)
    with torch.no_grad():
        first = {k: [names[0] for names in photo_names(k).values()] for k in ("objects64", "scenes32")}
        figures = coco(model, [names[0] for names in words.coco], words.held["coco"], step=4, share=2)
        drawn = scenes(model, [names[0] for names in words.scenes], count=20)
        return {
            "top1_200": top1(model, folder, "objects64", first["objects64"], 160, 10),
            "top1_80": top1(model, folder, "scenes32", first["scenes32"], 160, 8),
            "coco_v20": figures["v20"],
            "coco_full": figures["full"]["mIoU"],
            "scenes_v20": drawn["v20"]["mIoU"],
        }
