"""Picture → kept features → label map for any words.

``encode`` runs the tower once per picture and keeps its features; ``decode`` scores them against a vocabulary, as often
as the words change.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.dense import DenseFeatures
from ovseg.dense.windows import Box, windows
from ovseg.refine import LabelRefiner, MapRefiner, Picture
from ovseg.registry import DENSE, REFINERS, SCORERS
from ovseg.score import CosineScore, RunningArgmax, class_chunks, resize_rows, source_rows
from ovseg.towers import IMAGENET, Tower

from .protocol import Protocol
from .resize import resize


@dataclass
class Encoded:
    """Kept features of one picture.

    parts    dense features of the windows, in batches of (n, E, h, w)
    boxes    the windows (top, left, bottom, right) in the resized picture, all of one size
    resized  (H', W') of the resized picture
    size     (H, W) of the picture itself
    image    (3, H, W) normalised, for refiners that look at colours; None where there are none
    pixels   the picture, for refiners that make masks of it; None where there are none
    whole    dense features (1, E, h, w) of the whole view, where the protocol has one
    """

    parts: list[DenseFeatures]
    boxes: list[Box]
    resized: tuple[int, int]
    size: tuple[int, int]
    image: Tensor | None
    pixels: np.ndarray | None = None
    whole: DenseFeatures | None = None

    @property
    def views(self) -> list[DenseFeatures]:
        """The windows in batches and, last, the whole view where there is one."""
        return self.parts if self.whole is None else [*self.parts, self.whole]


class ClassMaps:
    """Maps (C, rows, W) of any range of words and any band of rows, from the kept features of one picture."""

    def __init__(self, encoded: Encoded, text: Tensor, scorer: CosineScore, side: int | None = None):
        self.encoded, self.text, self.scorer, self.side = encoded, text, scorer, side
        if type(scorer).forward is CosineScore.forward:
            self._prepared = [scorer.prepare(view) for view in encoded.views]
        else:  # the scorer looks at all words of a picture at once
            self._scores = [scorer(view, text) for view in encoded.views]
            self._prepared = None
        counts = torch.zeros(encoded.resized, device=text.device)
        for top, left, bottom, right in encoded.boxes:
            counts[top:bottom, left:right] += 1
        self.counts = counts

    def patch_scores(self, words: slice) -> list[Tensor]:
        """Scores on the patch grid, one (n, C, h, w) per batch of windows and one of the whole view."""
        if self._prepared is None:
            return [scores[:, words] for scores in self._scores]
        return [self.scorer.score(prepared, self.text[words]) for prepared in self._prepared]

    def stitched(self, scores: list[Tensor], rows: tuple[int, int]) -> Tensor:
        """Rows [a, b) of the resized picture: the mean over the windows that cover a pixel, (C, b − a, W')."""
        first, last = rows
        total = scores[0].new_zeros(scores[0].shape[1], last - first, self.encoded.resized[1])
        boxes = iter(self.encoded.boxes)
        for part, batch in zip(scores, self.encoded.parts, strict=False):
            left, top, right, bottom = batch.padding
            for window in part:
                y0, x0, y1, x1 = next(boxes)
                a, b = max(first, y0), min(last, y1)
                if a >= b:
                    continue
                padded = (y1 - y0 + top + bottom, x1 - x0 + left + right)
                band = self._active(resize_rows(window[None], padded, (a - y0 + top, b - y0 + top)))[0]
                total[:, a - first : b - first, x0:x1] += band[..., left : padded[1] - right]
        mean = total / self.counts[first:last]
        return mean if self.encoded.whole is None else (mean + self._whole(scores[-1], rows)) / 2

    def _whole(self, scores: Tensor, rows: tuple[int, int]) -> Tensor:
        """Rows [a, b) of the resized picture from the scores (1, C, h, w) of the whole view."""
        resized, side = self.encoded.resized, self.side
        band = source_rows(side, resized[0], rows)
        maps = self._active(resize_rows(scores, (side, side), band))
        return resize_rows(maps, resized, rows, (band[0], side))[0]

    def _active(self, maps: Tensor) -> Tensor:
        return maps if self.scorer.activation is None else self.scorer.activation(maps)

    def maps(self, words: slice, rows: tuple[int, int]) -> Tensor:
        """Rows [a, b) of the picture itself, (C, b − a, W)."""
        resized, size = self.encoded.resized, self.encoded.size
        if resized == size:
            return self.stitched(self.patch_scores(words), rows)
        band = source_rows(resized[0], size[0], rows)
        stitched = self.stitched(self.patch_scores(words), band)
        return resize_rows(stitched[None], size, rows, (band[0], resized[0]))[0]


def make_protocol(*layers: dict) -> Protocol:
    """One protocol from settings in order of precedence, the last one wins: a method's own, a benchmark's, those of the
    weights, the user's.

    Raises:
        ValueError: an unknown setting or one out of its range.
    """
    return Protocol.from_dict({name: value for layer in layers for name, value in layer.items()})


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
        self.refiners = nn.ModuleList(
            REFINERS.build(dict(type=r) if isinstance(r, str) else dict(r)) for r in self.protocol.refine
        )
        self.scorer.to(tower.device)
        self.eval()
        if self.protocol.view and self.protocol.view % tower.stride:
            raise ValueError(
                f"view={self.protocol.view} cuts patches: {tower.card.name} reads patches of {tower.stride} pixels. "
                f"Choose a multiple, such as {max(1, round(self.protocol.view / tower.stride)) * tower.stride}."
            )

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> Encoded:
        """Run the tower over the windows of one uint8 RGB picture (H, W, 3)."""
        pixels = self._normalise(resize(image, self.protocol))
        parts, boxes, whole = self.read(pixels, self._normalise(image) if self.protocol.whole_view else None)
        kept = image if any(isinstance(r, LabelRefiner) and r.sees_pixels for r in self.refiners) else None
        return Encoded(
            parts, boxes, tuple(pixels.shape[1:]), image.shape[:2], self._for_refiners(image, pixels), kept, whole
        )

    def read(self, pixels: Tensor, picture: Tensor | None = None):
        """Dense features of the windows in batches, the windows, and the features of the whole view, or None.

        Args:
            pixels: (3, H', W'), normalised, as the protocol resizes it.
            picture: (3, H, W), normalised, for the whole view.
        """
        protocol = self.protocol
        boxes = windows(*pixels.shape[1:], protocol.window, protocol.stride)
        crops = [pixels[:, top:bottom, left:right] for top, left, bottom, right in boxes]
        parts = [
            self.features(torch.stack(crops[i : i + protocol.window_batch]))
            for i in range(0, len(crops), protocol.window_batch)
        ]
        whole = None if picture is None else self.features(_square(picture[None], protocol.window))
        return parts, boxes, whole

    def features(self, views: Tensor) -> DenseFeatures:
        """Dense features of normalised pictures (B, 3, H, W), resized to the protocol's ``view`` where it has one."""
        return self.dense(self.tower, _square(views, self.protocol.view) if self.protocol.view else views)

    def _for_refiners(self, image: np.ndarray, resized: Tensor) -> Tensor | None:
        """The normalised picture (3, H, W) at its own size, where a refiner wants one."""
        if not any(isinstance(r, MapRefiner) or r.sees_image for r in self.refiners):
            return None
        if self.protocol.refine_image == "original":
            return self._normalise(image)
        return F.interpolate(resized[None], image.shape[:2], mode="bilinear", align_corners=False)[0]

    def _normalise(self, image: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.tower.device).permute(2, 0, 1)[None] / 255
        return self.tower.normalise(pixels, IMAGENET if self.protocol.normalisation == "imagenet" else None)[0]

    @torch.inference_mode()
    def decode(
        self, encoded: Encoded, text: Tensor, query_class, background: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Label map for words, before any threshold on the probability.

        Args:
            encoded: what ``encode`` returned.
            text: (T, E) unit word embeddings.
            query_class: class of each word, in non-decreasing order.
            background: class 0 is the background, which the area threshold never drops.

        Returns:
            labels (H, W) int64; probability of the winner and its lead over the second, (H, W) float32 in [0, 1].
        """
        maps = ClassMaps(encoded, text, self.scorer, self.protocol.window)
        affinities = [
            (refiner, refiner.affinity(encoded.image[None]))
            for refiner in self.refiners
            if isinstance(refiner, MapRefiner)
        ]
        query_class = list(query_class)
        found = self._argmax(encoded, maps, affinities, query_class)
        if self.protocol.area_threshold > 0:
            small = self._small_classes(found[0], query_class[-1] + 1, background)
            if small:
                found = self._argmax(encoded, maps, affinities, query_class, small)
        return self._relabelled(found[0], encoded, maps, affinities, query_class), *found[1:]

    def _relabelled(self, labels, encoded, maps, affinities, query_class) -> Tensor:
        """The label map after the refiners that look at it as a whole."""

        def logits(classes):
            rows = (0, encoded.size[0])
            words = {c: [i for i, of in enumerate(query_class) if of == c] for c in classes}
            parts = (self._logits(maps, slice(w[0], w[-1] + 1), rows, affinities) for w in words.values())
            return torch.stack([part.amax(0) for part in parts])

        picture = Picture(encoded.parts, encoded.boxes, encoded.resized, encoded.image, encoded.pixels, logits)
        for refiner in self.refiners:
            if isinstance(refiner, LabelRefiner):
                labels = refiner.relabel(labels, picture)
        return labels

    def _logits(self, maps, words: slice, rows: tuple[int, int], affinities) -> Tensor:
        """Refined maps (C, rows, W) of a range of words, scaled for the soft-max; log-probabilities of such scorers."""
        chunk = maps.maps(words, rows)
        for refiner, affinity in affinities:
            chunk = refiner.apply_to(chunk[None], affinity)[0]
        if self.scorer.probabilities:
            return chunk.clamp(min=1e-12).log()
        return chunk * self.protocol.logit_scale

    def _argmax(self, encoded, maps, affinities, query_class, exclude=frozenset()):
        """Bands of rows, and in each the words in portions, sized so that the maps stay within the memory budget."""
        height, width = encoded.size
        row_bytes = 4 * 6 * max(width, encoded.resized[1]) * max(1.0, encoded.resized[0] / height)
        few = min(len(query_class), 16)
        rows = height if affinities else int(min(height, max(1, self.protocol.memory // (few * row_bytes))))
        words = int(max(1, self.protocol.memory // (rows * row_bytes)))
        bands = []
        for first in range(0, height, rows):
            band = (first, min(first + rows, height))
            running = RunningArgmax((band[1] - first, width), self.tower.device, exclude)
            for part in class_chunks(query_class, words):
                running.update(self._logits(maps, part, band, affinities), query_class[part])
            bands.append(running.result())
        return tuple(torch.cat(column) for column in zip(*bands, strict=True))

    def _small_classes(self, labels: Tensor, classes: int, background: bool) -> frozenset[int]:
        """Foreground classes below the area threshold, relative to all foreground pixels (SCLIP); none if they are only
        classes that no pixel has."""
        counts = torch.bincount(labels.flatten(), minlength=classes).tolist()
        first = 1 if background else 0
        least = self.protocol.area_threshold * sum(counts[first:])
        small = frozenset(c for c in range(first, classes) if counts[c] < least)
        return small if any(counts[c] for c in small) else frozenset()


def _square(images: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) → (B, 3, side, side), bilinear."""
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
