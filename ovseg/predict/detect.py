"""Detection without training: a dense map, its score maps, regions of these, and the words that fit the regions.

    z_k = τ · max over the words t of class k of s(f, t),   background words as one class more;   p = softmax_k z
    regions r: components of each p_k and of Σ_k p_k at several shares of their peaks (``regions.proposals``), or given
    q_r = softmax_k( τ' · max_t cos(mean of f/‖f‖ under r, t) ),   of scorers other than the cosine: softmax(mean of z)
    score = q_rk · [mean of p_k inside r − mean in the ring around it]₊,   with given objectness o: √(score · o)

for the three likeliest k of each region, then NMS of each class.  The dense map is that of any extractor; windows are
stitched before maps are enlarged.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from ovseg.argmax import max_over_synonyms
from ovseg.pictures.images import LoadedImage
from ovseg.regions.crops import CropReader
from ovseg.regions.pooling import pool_boxes, pool_masks
from ovseg.regions.proposals import box_masks, contrast, mask_boxes, outermost, score_regions
from ovseg.results import rle
from ovseg.results.provenance import Provenance
from ovseg.score import CosineScore
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.text.stuff import stuff_without
from ovseg.text.vocabulary import Vocabulary

from .box_settings import BoxSettings
from .class_maps import ClassMaps, ImageFeatures
from .pipeline import Pipeline
from .protocol import digest
from .stitch import stitch

CLASSES = 256  # whose maps are enlarged, those of the highest peaks; the others are summed up in one


@dataclass
class EncodedPicture:
    """Kept features of a picture: the windows', and their stitched map.

    windows  what ``Pipeline.encode`` returned
    dense    (1, E, h, w) means of unit features; it covers the picture
    image    (H, W, 3) uint8 RGB, the picture itself
    source   the picture as it was read; None where only its pixels were given
    """

    windows: ImageFeatures
    dense: Tensor
    image: np.ndarray
    source: LoadedImage | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        return self.image.shape[:2]


class Words(NamedTuple):
    """An encoded vocabulary.

    text        (T, E) unit embeddings
    prompt_to_class      (T,) the class of each
    classes     how many there are, with that of the background
    background  the id of the latter, None if there is none
    extra       whether it comes behind the classes of the vocabulary
    """

    text: Tensor
    prompt_to_class: Tensor
    classes: int
    background: int | None
    extra: bool

    def fold(self, scores: Tensor) -> Tensor:
        """Scores (B, T, h, w) of words as those of classes, (B, K, h, w)."""
        return max_over_synonyms(scores, self.prompt_to_class, self.classes)


class Found(NamedTuple):
    """Detections, the best first: boxes (R, 4) in pixels, scores (R,), labels (R,) on the CPU, masks as COCO's run
    lengths, or None where only boxes were given."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: list[dict] | None


def leave_best(settings: BoxSettings, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Indices of the detections that are left after thresholds and NMS, the best first."""
    sound = (scores > 0) & (scores >= settings.score_threshold)
    sound &= (boxes[:, 2:] > boxes[:, :2]).all(1)
    candidates = sound.nonzero()[:, 0]
    best = candidates[
        batched_nms(boxes[candidates].float(), scores[candidates].float(), labels[candidates], settings.nms)
    ]
    if settings.inside < 1:
        best = best[outermost(boxes[best], labels[best], settings.inside)]
    return best[: settings.max_detections]


class DenseDetector(nn.Module):
    """Boxes with masks for any words, from a segmentation pipeline.

    An engine of ``ovseg.apis.Detector``: ``read`` words, ``encode`` a picture, ``decode`` both.

    Args:
        pipeline: tower, extractor and protocol; its refiners play no part.
        settings: how regions become detections.
        cache: keep text embeddings on disk.
    """

    boxes = True

    def __init__(self, pipeline: Pipeline, settings: BoxSettings | None = None, cache: bool = True):
        super().__init__()
        self.pipeline, self.settings = pipeline, settings or BoxSettings()
        protocol = pipeline.protocol
        self.encoder = TextEncoder(pipeline.tower, protocol.templates, EmbeddingCache() if cache else None)
        scorer = type(pipeline.scorer)
        self._crops = CropReader(pipeline.tower, masked=True)
        self.by_features = scorer.forward is CosineScore.forward and scorer.score is CosineScore.score

    @property
    def method(self) -> str:
        return self.pipeline.method

    def provenance(self, vocabulary: Vocabulary | None) -> Provenance:
        """What its detections are made with, whatever the picture."""
        base, settings = self.pipeline.provenance(vocabulary), asdict(self.settings)
        fingerprint = digest(settings | {"protocol": self.pipeline.protocol.fingerprint})
        return replace(base, protocol=self.pipeline.protocol.to_dict() | settings, fingerprint=fingerprint)

    def read(self, vocabulary: Vocabulary, progress=None) -> Words:
        """Encode a vocabulary and the background words; class ids are those of the vocabulary.

        Raises:
            ValueError: a vocabulary with a background threshold, which boxes have no use for.
        """
        policy = vocabulary.background
        if policy.threshold is not None:
            raise ValueError(
                f"the vocabulary has a background threshold, {policy.threshold:g}, which belongs to label maps: give "
                "detections a score_threshold instead, and background words as background=[…]."
            )
        prompts, prompt_to_class = list(vocabulary.prompts), list(vocabulary.prompt_to_class)
        background = 0 if policy.kind == "words" else None
        extra = self._background(prompts) if background is None else ()
        if extra:
            background = len(vocabulary)
            prompts, prompt_to_class = [*prompts, *extra], prompt_to_class + [background] * len(extra)
        text = self.encoder(prompts, progress)
        prompt_to_class = torch.tensor(prompt_to_class, device=text.device)
        return Words(text, prompt_to_class, len(vocabulary) + bool(extra), background, bool(extra))

    def _background(self, prompts: Sequence[str]) -> tuple[str, ...]:
        if self.settings.background is not None:
            return self.settings.background
        return stuff_without(prompts, self.pipeline.tower.card.words)

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> EncodedPicture:
        """Run the tower over one uint8 RGB picture (H, W, 3)."""
        windows = self.pipeline.encode(image)
        unit = [F.normalize(view.features.float(), dim=1) for view in windows.views]
        return EncodedPicture(windows, stitch(windows, unit)[None], np.ascontiguousarray(image))

    @torch.inference_mode()
    def decode(
        self,
        picture: EncodedPicture,
        words: Words,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        objectness: Tensor | None = None,
    ) -> Found:
        """Detections of the words.

        Args:
            picture, words: what ``encode`` and ``read`` returned.
            boxes: (R, 4) x1, y1, x2, y2 in pixels to choose from, in place of regions found here. Those without area,
                beyond the picture or not finite are no detections.
            masks: (R, H, W) boolean tensor, likewise.
            objectness: (R,) in [0, 1] of the given regions.

        Raises:
            ValueError: both boxes and masks, or another shape.
        """
        if objectness is not None and boxes is None and masks is None:
            raise ValueError("objectness belongs to given boxes or masks; there are none.")
        logits = self._logits(picture, words)
        classes, maps = self._enlarged(logits, words)
        cells, shapes, q, indices = self._regions(picture, words, logits, maps, boxes, masks)
        q = q[:, classes]
        best = q.topk(min(self.settings.names, len(classes)), dim=1).indices
        owner, label = torch.arange(len(q), device=q.device).repeat_interleave(best.shape[1]), best.flatten()
        pixels = maps.new_tensor([picture.size[1] / maps.shape[2], picture.size[0] / maps.shape[1]] * 2)
        pixel_boxes = clip_boxes_to_image(cells * pixels, picture.size)
        weights = contrast(maps, cells, shapes) if self.settings.contrast else torch.ones_like(q)
        trust = None if objectness is None else torch.as_tensor(objectness).to(q)[indices].clamp(0, 1)[:, None]

        def score(q: Tensor, regions: Tensor | slice = slice(None)) -> Tensor:
            scores = q * weights[regions]
            return scores if trust is None else (scores * trust[regions]).sqrt()

        scores = score(q)[owner, label]
        keep = leave_best(self.settings, pixel_boxes[owner], scores, label)
        if self.settings.guided and len(keep):
            near = owner[keep[: self.settings.guided]].unique()
            closer = self._look_closer(picture, words, pixel_boxes[near], shapes[near])[:, classes]
            table = score(q)
            table[near] = score((q[near] + closer) / 2, near)
            scores = table[owner, label]
            keep = keep[scores[keep].argsort(descending=True, stable=True)]
        region_of = owner[keep]
        outlines = None
        if masks is not None:
            outlines = [rle.encode(np.asarray(masks[i].cpu())) for i in indices[region_of].tolist()]
        elif boxes is None:
            pairs = zip(shapes[region_of], pixel_boxes[region_of], strict=True)
            outlines = [_outline(*pair, picture.size) for pair in pairs]
        return Found(pixel_boxes[region_of].cpu(), scores[keep].cpu(), classes[label[keep]].cpu(), outlines)

    def _regions(self, picture, words, logits, maps, boxes, masks) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (R, 4) and masks (R, h, w) on the grid of the maps, q (R, K), which of the given ones they are (R,)."""
        fine, coarse, settings = tuple(maps.shape[1:]), tuple(logits.shape[1:]), self.settings
        if boxes is None and masks is None:
            limits = settings.floor, settings.area * settings.detail**2
            of_class = score_regions(maps, settings.shares, *limits)
            of_all = score_regions(maps.sum(0, keepdim=True), settings.object_shares, *limits)
            cells, shapes = (torch.cat([one, other]) for one, other in zip(of_all[:2], of_class[:2], strict=True))
            q = self._names(picture, words, logits, masks=shares_of_cells(shapes.float(), coarse))
            return cells, shapes, q, torch.arange(len(cells), device=q.device)
        own_boxes, whole, indices = (
            None if part is None else part.to(maps.device) for part in given_regions(boxes, masks, picture.size)
        )
        cells = own_boxes * own_boxes.new_tensor([fine[1] / picture.size[1], fine[0] / picture.size[0]] * 2)
        if whole is None:
            return cells, box_masks(cells, fine), self._names(picture, words, logits, boxes=own_boxes), indices
        q = self._names(picture, words, logits, masks=shares_of_cells(whole, coarse))
        return cells, shares_of_cells(whole, fine), q, indices

    def _look_closer(self, picture, words, boxes: Tensor, masks: Tensor) -> Tensor:
        """q (R, K) of masked crops: boxes (R, 4) in pixels, masks (R, h, w) of any size."""
        fine_masks = (
            F.interpolate(masks.float()[:, None], picture.size, mode="bilinear", align_corners=False)[:, 0] > 0.5
        )
        pixels = torch.from_numpy(picture.image).to(boxes.device).permute(2, 0, 1) / 255
        return self.names(words, self._crops(pixels, boxes, fine_masks))

    def _logits(self, picture: EncodedPicture, words: Words) -> Tensor:
        """z, (K, h, w) on the patch grid."""
        if self.by_features:
            scores = torch.einsum("ehw,te->thw", picture.dense[0], words.text)
        else:
            maps = ClassMaps(picture.windows, words.text, self.pipeline.scorer, self.pipeline.protocol.window)
            scores = stitch(picture.windows, [each.float() for each in maps.patch_scores(slice(None))])
            scorer = self.pipeline.scorer
            scores = scores if scorer.activation is None else scorer.activation(scores)
            if scorer.probabilities:
                return words.fold(scores.clamp(min=1e-12).log()[None])[0]
        return words.fold(scores[None])[0] * self.pipeline.protocol.logit_scale

    def _enlarged(self, logits: Tensor, words: Words) -> tuple[Tensor, Tensor]:
        """Classes (C,) that may be detected and their probabilities (C, h·detail, w·detail)."""
        peaks = logits.softmax(0).flatten(1).amax(1)
        if words.background is not None:
            peaks[words.background] = -1
        count = words.classes - (words.background is not None)
        classes = peaks.argsort(descending=True, stable=True)[: min(CLASSES, count)].sort().values
        others = torch.ones(words.classes, dtype=torch.bool, device=logits.device)
        others[classes] = False
        parts = [logits[classes], logits[others].logsumexp(0, keepdim=True)] if others.any() else [logits[classes]]
        size = [side * self.settings.detail for side in logits.shape[1:]]
        maps = F.interpolate(torch.cat(parts)[None], size, mode="bilinear", align_corners=False)[0]
        return classes, maps.softmax(0)[: len(classes)]

    def _names(self, picture, words, logits, masks: Tensor | None = None, boxes: Tensor | None = None) -> Tensor:
        """q (R, K) of regions: masks (R, h, w) on the patch grid, or boxes (R, 4) in pixels."""
        source = picture.dense if self.by_features else logits[None]
        pooled = pool_masks(source, [masks]) if boxes is None else pool_boxes(source, [boxes], picture.size)
        return self.names(words, F.normalize(pooled, dim=1)) if self.by_features else pooled.softmax(1)

    def names(self, words: Words, embeddings: Tensor) -> Tensor:
        """Probabilities (R, K) of the classes for unit embeddings (R, E)."""
        cosines = (embeddings.float() @ words.text.T)[:, :, None, None]
        return (words.fold(cosines)[:, :, 0, 0] * self.settings.name_scale).softmax(1)


def given_regions(boxes, masks, size: tuple[int, int]) -> tuple[Tensor, Tensor | None, Tensor]:
    """Sound ones of given regions: boxes (R', 4) inside the picture, masks (R', H, W) or None, which they are (R',)."""
    if boxes is not None and masks is not None:
        raise ValueError("give boxes or masks to choose from, not both.")
    if masks is not None:
        masks = torch.as_tensor(masks).bool()
        if masks.ndim != 3 or tuple(masks.shape[1:]) != tuple(size):
            raise ValueError(f"masks are (R, {size[0]}, {size[1]}) for this picture, got {tuple(masks.shape)}.")
        boxes = mask_boxes(masks)
    boxes = torch.as_tensor(boxes).float()
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes are (R, 4): x1, y1, x2, y2 in pixels; got {tuple(boxes.shape)}.")
    inside = clip_boxes_to_image(boxes.nan_to_num(0), size)
    valid = (boxes.isfinite().all(1) & (inside[:, 2:] > inside[:, :2]).all(1)).nonzero()[:, 0]
    return inside[valid], None if masks is None else masks[valid].float(), valid


def shares_of_cells(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Shares of larger cells, (R, h, w), that masks (R, H, W) cover."""
    return F.interpolate(masks[:, None], size, mode="area")[:, 0] if len(masks) else masks.new_zeros(0, *size)


def _outline(mask: Tensor, box: Tensor, size: tuple[int, int]) -> dict:
    """A boolean mask (h, w), enlarged to the picture, as COCO's run lengths."""
    fine = F.interpolate(mask[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0]
    return encode_mask((fine > 0.5).cpu().numpy(), box)


def encode_mask(mask: np.ndarray, box: Tensor) -> dict:
    """A boolean mask (H, W) as COCO's run lengths; where it has no pixel, in a picture smaller than the maps it comes
    from, the pixels that its box (x1, y1, x2, y2) touches."""
    if not mask.any():
        x1, y1, x2, y2 = box.tolist()
        mask = np.zeros_like(mask)
        mask[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
    return rle.encode(mask)
