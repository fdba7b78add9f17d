"""Composed scenes: emoji cut-outs on procedural stuff, with exact masks, boxes and captions.

A scene is a pure function of the composer's settings and one integer seed.  Cut-outs come from the sheets written by
``tools/scenes/prepare_cutouts.py`` (sources and licenses in ``cutouts/cutouts.json``), stuff from ``stuff.py``.
"""

import json
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from .class_names import FOLDER, object_names, stuff_names
from .stuff import picture

CELL = 64
STUFF_PICTURES = {"train": range(0, 36), "held_out": range(36, 48)}


@dataclass
class Scene:
    """One composed image.

    image   (H, W, 3) uint8 RGB
    labels  (H, W) int64, index into ``object_names() + stuff_names()``
    objects one (label, (H, W) bool mask of the visible part, visible fraction in [0, 1]) per object, back to front
    """

    image: np.ndarray
    labels: np.ndarray
    objects: list[tuple[int, np.ndarray, float]]

    def boxes(self) -> np.ndarray:
        """(R, 4) float32 boxes x1, y1, x2, y2 in pixels around the visible part of each object."""
        boxes = []
        for _, mask, _ in self.objects:
            ys, xs = np.nonzero(mask)
            boxes.append((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) if len(xs) else (0, 0, 0, 0))
        return np.asarray(boxes, np.float32).reshape(-1, 4)

    def visible(self, fraction: float = 0.35, area: int = 40, stuff_share: float = 0.08) -> list[int]:
        """Labels worth naming: objects shown by at least ``fraction`` and ``area`` pixels, stuff ``stuff_share``."""
        named = [label for label, mask, share in self.objects if share >= fraction and mask.sum() >= area]
        counts = np.bincount(self.labels.ravel(), minlength=len(object_names()) + len(stuff_names()))
        stuff = np.nonzero(counts[len(object_names()) :] >= stuff_share * self.labels.size)[0] + len(object_names())
        return list(dict.fromkeys(named)) + stuff.tolist()


@cache
def cutouts(styles: tuple[str, ...]) -> list[list[np.ndarray]]:
    """For each object label: its premultiplied (64, 64, 4) float32 cut-outs in [0, 1] of the given styles."""
    index = json.loads((FOLDER / "cutouts" / "cutouts.json").read_text(encoding="utf-8"))
    label = {name: i for i, name in enumerate(object_names())}
    bank = [[] for _ in label]
    for style in styles:
        sheet = cv2.imread(str(FOLDER / "cutouts" / f"{style}.png"), cv2.IMREAD_UNCHANGED)
        sheet = cv2.cvtColor(sheet, cv2.COLOR_BGRA2RGBA).astype(np.float32) / 255
        sheet[..., :3] *= sheet[..., 3:]
        for i, name in enumerate(index[style]["classes"]):
            y, x = CELL * (i // 16), CELL * (i % 16)
            bank[label[name]].append(np.ascontiguousarray(sheet[y : y + CELL, x : x + CELL]))
    return bank


def styles_of(split: str) -> tuple[str, ...]:
    """The art styles of a split: ``seen`` (training) or ``unseen`` (kept for testing)."""
    index = json.loads((FOLDER / "cutouts" / "cutouts.json").read_text(encoding="utf-8"))
    return tuple(name for name, style in index.items() if style["unseen"] == (split == "unseen"))


@cache
def stuff_bank(split: str) -> list[list[np.ndarray]]:
    """For each kind of stuff its uint8 (192, 192, 3) images of a split (``train`` or ``held_out``)."""
    return [[picture(kind, seed) for seed in STUFF_PICTURES[split]] for kind in stuff_names()]


def restyled(rng, rgba: np.ndarray) -> np.ndarray:
    """A premultiplied cut-out (64, 64, 4) as another hand might draw it; each change happens half of the time."""
    alpha = rgba[..., 3:]
    color = rgba[..., :3] / np.maximum(alpha, 1e-3)
    gray = color.mean(-1)
    if rng.random() < 0.5:  # hue: a rotation of the color space about its gray axis, and saturation
        turn = cv2.Rodrigues(np.full(3, rng.normal(0, 0.5) / 3**0.5))[0].astype(np.float32)
        color = gray[..., None] + (color @ turn.T - gray[..., None]) * np.float32(rng.uniform(0.4, 1.5))
    if rng.random() < 0.5:  # flat areas
        levels = rng.integers(3, 7)
        color = np.round(cv2.bilateralFilter(np.float32(color), 7, 0.3, 4) * levels) / levels
    if rng.random() < 0.5:  # ink along the outline and the inner edges
        edge = np.abs(cv2.Laplacian(cv2.GaussianBlur(gray * alpha[..., 0], (0, 0), 1.2), cv2.CV_32F))
        ink = np.clip(edge * rng.uniform(8, 20), 0, 1)
        border = alpha[..., 0] - cv2.erode(alpha[..., 0], np.ones((3, 3), np.uint8), iterations=int(rng.integers(1, 3)))
        ink = np.maximum(ink, border)[..., None] * np.float32(rng.uniform(0.5, 1))
        color = color * (1 - ink) + ink * rng.uniform(0, 0.3, 3).astype(np.float32)
    if rng.random() < 0.5:  # gloss: light from one side, a soft highlight
        y, x = np.mgrid[:CELL, :CELL].astype(np.float32) / CELL - 0.5
        angle, spot = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3, 2)
        light = 0.6 * (x * np.cos(angle) + y * np.sin(angle))
        light += rng.uniform(0, 0.4) * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / 0.02)
        color = color + np.float32(light * rng.uniform(0.3, 1))[..., None]
    return np.concatenate([np.clip(color, 0, 1) * alpha, alpha], -1).astype(np.float32)


class SceneComposer:
    """Draws scenes.

    Args:
        size: side of the square image in pixels.
        objects: smallest and largest number of objects.
        extent: smallest and largest extent of an object in pixels (drawn log-uniformly).
        styles: ``seen`` or ``unseen`` art styles.
        split: ``train`` or ``held_out`` images of stuff.
        augment: how strongly color, shape and outline of cut-outs vary, in [0, 1].
        inside: smallest share of an object's extent that lies inside the image.
        restyle: share of cut-outs drawn anew (hue, flat areas, ink lines, gloss), in [0, 1].
    """

    def __init__(
        self,
        size=128,
        objects=(2, 5),
        extent=(26, 60),
        styles="seen",
        split="held_out",
        augment=0.5,
        inside=0.8,
        restyle=0.0,
    ):
        self.size, self.objects, self.extent = size, objects, extent
        self.augment, self.inside, self.restyle = augment, inside, restyle
        self.cutouts = cutouts(styles_of(styles))
        self.stuff = stuff_bank(split)

    def __call__(self, seed, classes=None, kinds=None) -> Scene:
        """The scene of an integer ``seed`` (or sequence of integers).

        ``classes`` (object labels, back to front) and ``kinds`` (indices into the stuff) restrict what is drawn.
        """
        rng = np.random.default_rng(seed)
        canvas, labels = self._ground(rng, range(len(self.stuff)) if kinds is None else kinds)
        if classes is None:
            count = rng.integers(self.objects[0], self.objects[1] + 1)
            classes = rng.choice(len(self.cutouts), count, replace=False)
        masks = []
        for label in classes:
            rgba = self._place(rng, self.cutouts[label][rng.integers(len(self.cutouts[label]))])
            alpha = rgba[..., 3:]
            canvas = canvas * (1 - alpha) + rgba[..., :3]
            mask = alpha[..., 0] > 0.5
            masks.append(mask)
            labels[mask] = label
        canvas = canvas * rng.uniform(0.85, 1.12) + rng.normal(0, 1, canvas.shape).astype(np.float32) * rng.uniform(
            0, 0.03
        )
        return Scene(np.uint8(255 * np.clip(canvas, 0, 1)), labels, self._visible(list(classes), masks))

    def _ground(self, rng, kinds):
        """One or two regions of stuff, split by a slanted line: canvas in [0, 1] and labels."""
        kinds = rng.choice(np.asarray(kinds), min(len(kinds), 1 + (rng.random() < 0.5)), replace=False)
        parts = []
        for kind in kinds:
            source = self.stuff[kind][rng.integers(len(self.stuff[kind]))]
            side = min(source.shape[0], int(self.size * rng.uniform(0.8, 1.3)))
            y, x = rng.integers(0, source.shape[0] - side + 1, 2)
            crop = source[y : y + side, x : x + side]
            crop = crop[:, ::-1] if rng.random() < 0.5 else crop
            parts.append(cv2.resize(crop, (self.size, self.size), interpolation=cv2.INTER_AREA))
        base = len(self.cutouts)
        canvas = parts[0].astype(np.float32) / 255
        labels = np.full((self.size, self.size), base + kinds[0], np.int64)
        if len(kinds) == 2:
            y, x = np.mgrid[: self.size, : self.size].astype(np.float32) / self.size - 0.5
            angle = rng.uniform(0, np.pi)
            second = y * np.cos(angle) + x * np.sin(angle) > rng.uniform(-0.25, 0.25)
            canvas[second] = parts[1][second].astype(np.float32) / 255
            labels[second] = base + kinds[1]
        return canvas, labels

    def _place(self, rng, rgba):
        """A cut-out, varied and warped onto the whole canvas; premultiplied (size, size, 4)."""
        a, extent = self.augment, np.exp(rng.uniform(*np.log(self.extent)))
        if self.restyle and rng.random() < self.restyle:
            rgba = restyled(rng, rgba)
        rgba = self._recolor(rng, rgba)
        stretch = extent / CELL * np.exp(rng.uniform(-0.15, 0.15, 2) * a)
        while min(stretch) < 0.5 and rgba.shape[0] > 8:
            rgba, stretch = cv2.resize(rgba, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), stretch * 2
        angle = rng.normal(0, 0.25) * 2 * a
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        flip = np.diag([rng.choice([-1.0, 1.0]), 1.0])
        linear = turn @ np.diag(stretch) @ flip
        margin = extent * (self.inside - 0.5)
        center = rng.uniform(margin, self.size - margin, 2) if self.size > 2 * margin else np.full(2, self.size / 2)
        offset = center - linear @ np.full(2, (rgba.shape[0] - 1) / 2)
        return cv2.warpAffine(rgba, np.column_stack([linear, offset]), (self.size, self.size), flags=cv2.INTER_LINEAR)

    def _recolor(self, rng, rgba):
        """Vary color, contrast, outline and shading of a premultiplied cut-out."""
        a = self.augment
        color, alpha = rgba[..., :3], rgba[..., 3:]
        if rng.random() < a:
            mix = np.eye(3) + rng.normal(0, 0.12, (3, 3)) * a
            color = color @ mix.T.astype(np.float32) * np.float32(rng.uniform(0.75, 1.25))
        if rng.random() < 0.1 * a:
            color = np.repeat(color.mean(-1, keepdims=True), 3, -1)
        if rng.random() < 0.4 * a:
            edge = alpha[..., 0] - cv2.erode(alpha[..., 0], np.ones((3, 3), np.uint8))
            color = color * (1 - edge[..., None] * rng.uniform(0.5, 1.0))
        if rng.random() < 0.4 * a:
            ramp = np.linspace(rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), CELL, dtype=np.float32)
            color = color * (1 + (ramp[:, None] if rng.random() < 0.5 else ramp[None])[..., None])
        return np.concatenate([np.clip(color, 0, alpha), alpha], -1)

    @staticmethod
    def _visible(classes, masks):
        """Subtract from each mask what later objects cover."""
        objects, covered = [], None
        for label, mask in zip(reversed(classes), reversed(masks), strict=True):
            seen = mask if covered is None else mask & ~covered
            objects.append((int(label), seen, float(seen.sum() / max(1, mask.sum()))))
            covered = mask if covered is None else covered | mask
        return objects[::-1]
