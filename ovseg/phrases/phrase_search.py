"""Adapting CLIP For Phrase Localization Without Further Training (Li, Shakhnarovich and Yeh, 2022, arXiv 2204.03647).

    g_r  ← g_r + O( softmax(s·q(g_r) [k(patches of r), k(g_r)]ᵀ) [v(patches of r); v(g_r)] ),   g_r ← g_r + FFN(g_r)
    s_r  = cos(phrase, proj(ln_post(g_r)))
    h(p) = mean over the superpixels r that cover p of exp(s_r / T),   then scaled to [0, 1] by its least and largest
    box  = argmax over boxes of   Σ h inside / Σ h − α · area / (H·W)

g_r is an additional class token for each superpixel r, in all blocks.  The superpixels are SLIC's at eleven scales; the
image is resized to a square without keeping its aspect ratio; the phrase is encoded without a template.  Parts:
``regions/masked_tokens.py`` (g_r), ``regions/superpixels.py``, ``heatmap.py`` (h), ``box_search.py``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ovseg.regions.masked_tokens import MaskedTokens, nearest
from ovseg.regions.superpixels import SEGMENT_COUNTS, as_masks, superpixels
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.towers import Tower
from ovseg.towers.positions import as_recorded, as_size

from .box_search import search_box
from .heatmap import heat_map

SETTINGS = ("alpha", "temperature", "upsample", "start_block", "counts", "size")
"""Arguments of ``PhraseSearch`` that a box depends on, besides the weights."""


@dataclass(eq=False)
class PhraseMatch:
    """The location of a phrase in one image.

    phrase     the phrase
    box        (x1, y1, x2, y2) in pixels of the image, edges: x from 0 to W, y from 0 to H
    score      largest cosine between the phrase and a region that intersects the box, in [−1, 1]
    objective  objective of the box search: share of the heat inside minus α times the share of the area
    heat       (h, w) float32 in [0, 1], the heat map at the tower's input size; ``heatmap`` has the size of the image
    shape      (H, W) of the image
    """

    phrase: str
    box: tuple[float, float, float, float]
    score: float
    objective: float
    heat: np.ndarray
    shape: tuple[int, int]

    @cached_property
    def heatmap(self) -> np.ndarray:
        """(H, W) float32 in [0, 1], upsampled bilinearly."""
        return cv2.resize(self.heat, self.shape[::-1], interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True, eq=False)
class RegionFeatures:
    """The regions of an image: ids (S, h, w), unit embeddings (R, E), and the image size (H, W)."""

    maps: np.ndarray
    features: Tensor
    shape: tuple[int, int]


class PhraseSearch:
    """Locates phrases in images: ``encode`` runs the tower once, then ``find`` can be called with any phrases.

    Args:
        tower: a Vision Transformer whose image embedding is that of its class token, with a text model.
        alpha: weight of the area; larger values give tighter boxes.  The paper: 0.75 and 0.8 (ViT-L/14, Flickr30k and
            Visual Genome), 0.8 and 0.85 (ViT-B/16), 0.9 (ViT-B/32).
        temperature: of the heat map; smaller values emphasize the best regions.  The paper: 0.01 (ViT-B/16), 0.02
            (ViT-L/14).
        upsample, start_block: see ``MaskedTokens``; ``upsample`` None means 2, or 1 if ``size`` already gives more
            tokens than in training.
        counts: superpixels per segmentation.
        size: side or (H, W) in pixels that the image is resized to; None: the short side recorded with the weights,
            else their training resolution.
        cache: cache text embeddings on disk.

    Raises:
        ValueError: a tower that is not a ViT with a class token, or a setting out of range.
    """

    paper = MaskedTokens.paper

    def __init__(
        self,
        tower: Tower,
        *,
        alpha: float = 0.8,
        temperature: float = 0.01,
        upsample: int | None = None,
        start_block: int = 0,
        counts: Sequence[int] = SEGMENT_COUNTS,
        size: int | tuple[int, int] | None = None,
        cache: bool = True,
    ):
        self.tower = tower
        self.alpha, self.temperature, self.counts = alpha, temperature, tuple(counts)
        self.size = as_size(tower.card.protocol.get("short_side", tower.image_size) if size is None else size)
        if upsample is None:
            upsample = 2 if max(self.size) <= max(tower.image_size) else 1
        self.regions = MaskedTokens(upsample, start_block)
        if not (temperature > 0 and 0 <= alpha < 1 and min(self.size) >= tower.stride and self.counts):
            raise ValueError(
                f"a locator needs temperature > 0, 0 <= alpha < 1, a size of at least one patch ({tower.stride} "
                f"pixels) and counts of superpixels; got temperature={temperature}, alpha={alpha}, "
                f"size={as_recorded(self.size)}, counts={self.counts}."
            )
        self.regions.grid_of(tower, torch.empty(1, 3, *self.size))  # rejects unsuitable towers early
        self.encoder = _PhraseEncoder(tower, "name", EmbeddingCache() if cache else None)

    @property
    def settings(self) -> dict:
        """``SETTINGS``, plain JSON values."""
        used, size = self.regions, as_recorded(self.size)
        values = (self.alpha, self.temperature, used.upsample, used.start_block, list(self.counts), size)
        return dict(zip(SETTINGS, values, strict=True))

    def encode(self, picture: np.ndarray) -> RegionFeatures:
        """Embed the regions of an image (H, W, 3), uint8 RGB of any size."""
        squashed = Image.fromarray(picture).resize(self.size[::-1], Image.Resampling.BICUBIC)
        pixels = np.asarray(squashed)
        maps = superpixels(pixels, self.counts)
        return RegionFeatures(maps, self._embed(pixels, maps), picture.shape[:2])

    def find(self, regions: RegionFeatures, phrases: Sequence[str]) -> list[PhraseMatch]:
        """The location of each phrase, in the order of the phrases.

        Raises:
            ValueError: no phrases, or one that is blank or too long.
        """
        if not phrases or any(not isinstance(p, str) or not p.strip() for p in phrases):
            raise ValueError(f'expected phrases such as "a red umbrella", one or a list of them; got {phrases!r}.')
        scores = (self.encoder(phrases) @ regions.features.T).float().cpu().numpy()
        return [self._match(regions, phrase, row) for phrase, row in zip(phrases, scores, strict=True)]

    def _embed(self, pixels: np.ndarray, maps: np.ndarray) -> Tensor:
        """Unit embeddings (R, E) of the superpixels of one resized image."""
        images = torch.from_numpy(np.array(pixels)).to(self.tower.device).permute(2, 0, 1)[None] / 255
        images = self.tower.normalize(images)
        ids = nearest(torch.from_numpy(maps), self.regions.grid_of(self.tower, images)).numpy()
        cells = np.zeros((int(maps.max()) + 1, *ids.shape[1:]), dtype=bool)
        cells[: int(ids.max()) + 1] = as_masks(ids)  # regions may have vanished on the token grid
        # Many superpixels cover the same tokens: each distinct set is embedded once.
        _, first, which = np.unique(
            np.packbits(cells.reshape(len(cells), -1), axis=1), axis=0, return_index=True, return_inverse=True
        )
        features = self.regions.encode(self.tower, images, torch.from_numpy(cells[first])[None])
        features = features[:, torch.from_numpy(which.reshape(-1)).to(features.device)]
        return F.normalize(features[0].float(), dim=-1)

    def _match(self, regions: RegionFeatures, phrase: str, scores: np.ndarray) -> PhraseMatch:
        heat = heat_map(scores, regions.maps, self.temperature)
        best = search_box(heat, self.alpha)
        inside = regions.maps[:, best.y1 : best.y2 + 1, best.x1 : best.x2 + 1]
        down, across = (here / there for here, there in zip(regions.shape, self.size, strict=True))
        return PhraseMatch(
            phrase=phrase,
            box=(best.x1 * across, best.y1 * down, (best.x2 + 1) * across, (best.y2 + 1) * down),
            score=float(scores[np.unique(inside)].max()),
            objective=best.objective,
            heat=heat,
            shape=regions.shape,
        )


class _PhraseEncoder(TextEncoder):
    """Encodes phrases without a template; "a bus" counts as known if "bus" does."""

    def check_known(self, words: Sequence[str]):
        super().check_known([re.sub(r"^\s*(an?|the)\s+", "", word, flags=re.IGNORECASE) for word in words])
