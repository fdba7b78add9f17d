"""Picture → kept features → label map for any words.

``encode`` runs the tower once per picture and keeps its features; ``decode`` scores them against a vocabulary, as often
as the words change.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.argmax import (
    BreakpointMaps,
    Confidence,
    RunningArgmax,
    canonical_order,
    class_chunks,
    in_former_classes,
    winning_prompts,
)
from ovseg.dense import DenseFeatures
from ovseg.dense.windows import windows
from ovseg.refine import LabelRefiner, MapRefiner, Picture
from ovseg.registry import DENSE, REFINERS, SCORERS, component_name
from ovseg.results.provenance import Provenance, plain, tower_weights
from ovseg.score import CosineScore
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import IMAGENET, Tower

from .class_maps import ClassMaps, ImageFeatures
from .decoded import Decoded
from .protocol import Protocol
from .resize import resize


class Pipeline(nn.Module):
    """Tower + dense extractor + scorer + refiners under one protocol.

    Args:
        tower: image tower.
        dense: an extractor, or its config ``dict(type="NACLIP", …)``.
        protocol: prediction settings.
        scorer: scores on the patch grid, or its config; the extractor's own unless given, the cosine if it has none.
            Its ``activation``, if any, is applied to enlarged maps of windows before they are averaged.

    Raises:
        ValueError: a ``view`` that is no multiple of the tower's patch.
    """

    def __init__(self, tower: Tower, dense, protocol: Protocol | None = None, scorer=None):
        super().__init__()
        self.tower = tower
        self.dense = DENSE.build(dense) if isinstance(dense, dict) else dense
        self.protocol = protocol or Protocol()
        scorer = scorer or self.dense.scorer or CosineScore()
        self.scorer = SCORERS.build(dict(scorer)) if isinstance(scorer, dict) else scorer
        self._options, self._scoring = _options(dense), _options(scorer)
        self.refiners = nn.ModuleList(
            REFINERS.build(dict(type=r) if isinstance(r, str) else dict(r)) for r in self.protocol.refine
        )
        self._fitting: int | None = None  # windows per forward pass after a device ran out of memory
        self._compiled: dict[str, Any] | None = None
        self.scorer.to(tower.device)
        self.eval()
        if self.protocol.view and self.protocol.view % tower.stride:
            raise ValueError(
                f"view={self.protocol.view} cuts patches: {tower.card.name} reads patches of {tower.stride} pixels. "
                f"Choose a multiple, such as {max(1, round(self.protocol.view / tower.stride)) * tower.stride}."
            )

    @property
    def method(self) -> str:
        """The name of the extractor."""
        return component_name(type(self.dense))

    def applied(self, vocabulary: Vocabulary | None) -> Protocol:
        """The protocol with the threshold of the words, where they have one."""
        threshold = None if vocabulary is None else vocabulary.background.threshold
        return self.protocol if threshold is None else self.protocol.but(threshold=threshold)

    def provenance(self, vocabulary: Vocabulary | None = None) -> Provenance:
        """What label maps are made with, whatever the picture."""
        applied = self.applied(vocabulary)
        return Provenance(
            method=self.method,
            options=self._options,
            scorer={"name": component_name(type(self.scorer))} | self._scoring,
            weights=tower_weights(self.tower.card),
            vocabulary_hash=None if vocabulary is None else vocabulary.hash,
            protocol=applied.to_dict(),
            fingerprint=applied.fingerprint,
        )

    def encode(self, image: np.ndarray) -> ImageFeatures:
        """Run the tower over the windows of one uint8 RGB picture (H, W, 3)."""
        return self.encode_all([image])[0]

    @torch.inference_mode()
    def encode_all(self, images: Sequence[np.ndarray]) -> list[ImageFeatures]:
        """Run the tower over the windows of uint8 RGB pictures (H, W, 3) of any sizes.

        Windows of one size share forward passes, whichever pictures they are of.
        """
        pixels = [self.normalized(resize(image, self.protocol)) for image in images]
        whole = [self.normalized(image) for image in images] if self.protocol.whole_view else None
        see_pixels = any(isinstance(refiner, LabelRefiner) and refiner.sees_pixels for refiner in self.refiners)
        return [
            ImageFeatures(
                parts,
                boxes,
                tuple(resized.shape[1:]),
                image.shape[:2],
                self._for_refiners(image, resized),
                image if see_pixels else None,
                view,
            )
            for image, resized, (parts, boxes, view) in zip(images, pixels, self.read(pixels, whole), strict=True)
        ]

    def read(self, pixels: Sequence[Tensor], pictures: Sequence[Tensor] | None = None):
        """For each picture the dense features of its windows in batches, the windows, and the features of the whole
        view, or None.

        Args:
            pixels: (3, H', W') each, normalized, as the protocol resizes them.
            pictures: (3, H, W) each, normalized, for the whole views.
        """
        window, stride = self.protocol.window, self.protocol.stride
        boxes = [windows(*each.shape[1:], window, stride) for each in pixels]
        parts = self._in_batches(
            [
                [each[:, top:bottom, left:right] for top, left, bottom, right in windows_of_picture]
                for each, windows_of_picture in zip(pixels, boxes, strict=True)
            ]
        )
        wholes = [None] * len(pixels)
        if pictures is not None:
            wholes = [part for (part,) in self._in_batches([_square(each[None], window) for each in pictures])]
        return list(zip(parts, boxes, wholes, strict=True))

    def _in_batches(self, views: Sequence[Sequence[Tensor]]) -> list[list[DenseFeatures]]:
        """Dense features of normalized views (3, H, W), in batches; those of each picture apart.

        Where a device has too little memory for a batch, batches are halved, once and from then on, and a warning says
        so.
        """
        features_of: list[list[DenseFeatures]] = [[] for _ in views]
        sizes: dict[torch.Size, list[tuple[int, Tensor]]] = {}
        for owner, own in enumerate(views):
            for view in own:
                sizes.setdefault(view.shape, []).append((owner, view))
        for size, group in sizes.items():
            owners, same = zip(*group, strict=True)
            most = min(len(same), self._window_batch(size[1:]))
            try:
                passes = self._passes(same, most)
            except torch.OutOfMemoryError:
                if most == 1:
                    raise
                most //= 2
                self._fitting = most
                warnings.warn(f"out of memory: from here on {most} windows per forward pass.", stacklevel=2)
                passes = self._passes(same, most)
            for first, features in zip(range(0, len(same), most), passes, strict=True):
                start = 0
                for owner, count in Counter(owners[first : first + most]).items():
                    features_of[owner].append(features.rows(slice(start, start + count)))
                    start += count
        return features_of

    def _passes(self, views: Sequence[Tensor], most: int) -> list[DenseFeatures]:
        """Features of views of one size, ``most`` at a time."""
        return [self.features(torch.stack(views[i : i + most])) for i in range(0, len(views), most)]

    def _window_batch(self, size: tuple[int, int]) -> int:
        """Windows per forward pass: as many as the protocol allows and as fit into its memory, at twelve floats per
        token and channel (of a block's input, sums, q, k, v, attention and hidden layer)."""
        height, width = size if self.protocol.view is None else (self.protocol.view, self.protocol.view)
        tokens = 1 + -(-height // self.tower.stride) * -(-width // self.tower.stride)
        limits = [self.protocol.window_batch, self.protocol.memory // (48 * self.tower.width * tokens)]
        return max(1, min(limits if self._fitting is None else [*limits, self._fitting]))

    def features(self, views: Tensor) -> DenseFeatures:
        """Dense features of normalized pictures (B, 3, H, W), resized to the protocol's ``view`` where it has one."""
        views = _square(views, self.protocol.view) if self.protocol.view else views
        precision = getattr(torch, self.protocol.precision)
        with torch.autocast(views.device.type, precision, enabled=precision != torch.float32):
            return self.dense(self.tower, views)

    def compile(self, **options) -> "Pipeline":
        """Compile tower and extractor with ``torch.compile`` and its options; the first picture of a size then takes
        longer. Returns itself."""
        self._compiled = options
        self.features = torch.compile(self.features, **options)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "features"}

    def __setstate__(self, state: dict[str, Any]):
        super().__setstate__(state)
        if self._compiled is not None:  # compiled code is neither copied nor stored
            self.compile(**self._compiled)

    def _for_refiners(self, image: np.ndarray, resized: Tensor) -> Tensor | None:
        """The normalized picture (3, H, W) at its own size, where a refiner wants one."""
        if not any(isinstance(r, MapRefiner) or r.sees_image for r in self.refiners):
            return None
        if self.protocol.refine_image == "original":
            return self.normalized(image)
        return F.interpolate(resized[None], image.shape[:2], mode="bilinear", align_corners=False)[0]

    def normalized(self, image: np.ndarray) -> Tensor:
        """uint8 RGB (H, W, 3) → (3, H, W) by the protocol's statistics."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.tower.device).permute(2, 0, 1)[None] / 255
        return self.tower.normalize(pixels, IMAGENET if self.protocol.normalization == "imagenet" else None)[0]

    @torch.inference_mode()
    def decode(self, encoded: ImageFeatures, text: Tensor, prompt_to_class, background: bool = False) -> Decoded:
        """Label map for words, before any threshold on the probability; it does not depend on their order.

        Args:
            encoded: what ``encode`` returned.
            text: (T, E) unit word embeddings.
            prompt_to_class: class of each word, in non-decreasing order.
            background: class 0 is the background, which the area threshold never drops.
        """
        keep_first = self.scorer.first_is_background
        order, prompt_to_class, former = canonical_order(text, list(prompt_to_class), keep_first)
        maps = ClassMaps(encoded, text[order], self.scorer, self.protocol.window)
        affinities = [
            (refiner, refiner.affinity(encoded.image[None]))
            for refiner in self.refiners
            if isinstance(refiner, MapRefiner)
        ]
        if affinities or self.scorer.activation is not None:
            find = partial(self._streamed, encoded, maps, affinities, prompt_to_class)
        else:
            find = partial(self.bounded, maps.breakpoints(), prompt_to_class)
        decoded = find()
        if self.protocol.area_threshold > 0:
            small = self._small_classes(in_former_classes(decoded.labels, former), len(former), background)
            if small:
                decoded = find(frozenset(new for new, old in enumerate(former) if old in small))
        labels = self._relabeled(decoded.labels, encoded, maps, affinities, prompt_to_class)
        decoded.labels = in_former_classes(labels, former)
        return decoded

    def bounded(
        self, breakpoints: BreakpointMaps, prompt_to_class, exclude=frozenset(), memory: int | None = None
    ) -> Decoded:
        """By branch and bound: for maps that are linear from the patches to the picture.

        Args:
            breakpoints: values of all words.
            prompt_to_class: class of each word, in non-decreasing order.
            exclude: classes that may not win.
            memory: bytes that the maps may take; those of the protocol unless given.
        """
        memory = max(2**18, (self.protocol.memory if memory is None else memory) // 8)
        classes = torch.tensor(prompt_to_class, device=self.tower.device)
        excluded = None
        if exclude:
            excluded = torch.isin(classes, torch.tensor(sorted(exclude), device=classes.device))
            candidates = (~excluded).nonzero()[:, 0]
            winners = candidates[winning_prompts(breakpoints.of(candidates), memory)] if len(candidates) else None
        else:
            winners = winning_prompts(breakpoints, memory)
        if winners is None:
            winners = torch.zeros(
                breakpoints.rows.size, breakpoints.columns.size, dtype=torch.long, device=classes.device
            )
            labels = winners.clone()
        else:
            labels = winners if prompt_to_class == list(range(len(prompt_to_class))) else classes[winners]
        scale = None if self.scorer.probabilities else self.protocol.logit_scale
        confidence = Confidence(breakpoints, winners.int(), classes, scale, excluded, memory)
        return Decoded(labels, confidence.scores, confidence.below)

    def _relabeled(self, labels, encoded, maps, affinities, prompt_to_class) -> Tensor:
        """The label map after the refiners that look at it as a whole."""

        def logits(classes):
            rows = (0, encoded.size[0])
            words = {c: [i for i, of in enumerate(prompt_to_class) if of == c] for c in classes}
            parts = (self._logits(maps, slice(w[0], w[-1] + 1), rows, affinities) for w in words.values())
            return torch.stack([part.amax(0) for part in parts])

        picture = Picture(encoded.parts, encoded.boxes, encoded.resized, encoded.image, encoded.pixels, logits)
        for refiner in self.refiners:
            if isinstance(refiner, LabelRefiner):
                labels = refiner.relabel(labels, picture)
        return labels

    def _logits(self, maps, words: slice, rows: tuple[int, int], affinities) -> Tensor:
        """Refined maps (C, rows, W) of a range of words, scaled for the softmax; log-probabilities of such scorers."""
        chunk = maps.maps(words, rows)
        for refiner, affinity in affinities:
            chunk = refiner.apply_to(chunk[None], affinity)[0]
        if self.scorer.probabilities:
            return chunk.clamp(min=1e-12).log()
        return chunk * self.protocol.logit_scale

    def _streamed(self, encoded, maps, affinities, prompt_to_class, exclude=frozenset()) -> Decoded:
        """By the maps of all words, which a refiner or an activation asks for: bands of rows, and in each the words in
        portions, sized so that the maps stay within the memory budget."""
        height, width = encoded.size
        row_bytes = 4 * 6 * max(width, encoded.resized[1]) * max(1.0, encoded.resized[0] / height)
        few = min(len(prompt_to_class), 16)
        rows = height if affinities else int(min(height, max(1, self.protocol.memory // (few * row_bytes))))
        words = int(max(1, self.protocol.memory // (rows * row_bytes)))
        bands = []
        for first in range(0, height, rows):
            band = (first, min(first + rows, height))
            running = RunningArgmax((band[1] - first, width), self.tower.device, exclude)
            for part in class_chunks(prompt_to_class, words):
                running.update(self._logits(maps, part, band, affinities), prompt_to_class[part])
            bands.append(running.result())
        labels, *confidence = (torch.cat(column) for column in zip(*bands, strict=True))
        return Decoded(labels, lambda: tuple(confidence))

    def _small_classes(self, labels: Tensor, classes: int, background: bool) -> frozenset[int]:
        """Foreground classes below the area threshold, relative to all foreground pixels (SCLIP); none if they are only
        classes that no pixel has."""
        counts = torch.bincount(labels.flatten(), minlength=classes).tolist()
        first = 1 if background else 0
        least = self.protocol.area_threshold * sum(counts[first:])
        small = frozenset(c for c in range(first, classes) if counts[c] < least)
        return small if any(counts[c] for c in small) else frozenset()


def _options(component) -> dict[str, Any]:
    """The options that a config gives, plain JSON values; of what was built elsewhere nothing is known."""
    config = component if isinstance(component, dict) else {}
    return {key: plain(value) for key, value in config.items() if key != "type"}


def _square(images: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) → (B, 3, side, side), bilinear."""
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
