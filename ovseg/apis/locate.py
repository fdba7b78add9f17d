"""Where is what a phrase names? One box and a heat map per phrase: Adapting CLIP (arXiv 2204.03647), training-free."""

import io
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ovseg.compat.checkpoint import atomic_write
from ovseg.predict.images import LoadedImage, load_image, unique_stems
from ovseg.regions import SEGMENT_COUNTS, MaskedTokens, as_masks, heat_map, search_box, superpixels
from ovseg.regions.masked_tokens import nearest
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.towers import Tower, load_tower

from .draw_boxes import draw_boxes
from .predictor import _say_once, pick_device


@dataclass(eq=False)
class Location:
    """Where a phrase was found in one picture.

    phrase     as it was given
    box        (x1, y1, x2, y2) in pixels of the picture, edges: x from 0 to W, y from 0 to H
    score      largest cosine between the phrase and a region that meets the box, in [−1, 1]
    objective  what the box search maximised: share of the heat inside minus α times the share of the area
    heat       (h, w) float32 in [0, 1], the heat map at the size the tower saw; ``heatmap`` has the picture's size
    image      (H, W, 3) uint8 RGB
    settings   method, weights and settings, plain JSON values
    path       file the picture came from
    """

    phrase: str
    box: tuple[float, float, float, float]
    score: float
    objective: float
    heat: np.ndarray
    image: np.ndarray
    settings: dict
    path: Path | None = None

    @cached_property
    def heatmap(self) -> np.ndarray:
        """(H, W) float32 in [0, 1], bilinear."""
        return cv2.resize(self.heat, self.image.shape[1::-1], interpolation=cv2.INTER_LINEAR)

    def plot(self, heat: bool = True) -> Image.Image:
        """The picture with the box and, unless switched off, the heat as brightness."""
        return draw_boxes(self.image, [self.box], [self.phrase], self.heat if heat else None)

    def save(self, folder: str | Path, stem: str | None = None) -> dict[str, Path]:
        """Write ``<stem>_boxes.png`` and ``<stem>_boxes.json``, each of them whole or not at all; returns the paths.

        Raises:
            ValueError: a stem with a folder in it, or a folder that is a file.
        """
        return save_locations([self], folder, stem, self.plot())

    def to_dict(self) -> dict[str, Any]:
        box = [round(float(v), 2) for v in self.box]
        return {
            "phrase": self.phrase,
            "box": box,
            "score": round(self.score, 6),
            "objective": round(self.objective, 6),
        }

    def __repr__(self) -> str:
        box = ", ".join(f"{v:.0f}" for v in self.box)
        return f"Location({self.phrase!r}, box ({box}), score {self.score:.3f})"

    def _repr_png_(self) -> bytes:  # what notebooks display
        buffer = io.BytesIO()
        self.plot().save(buffer, "PNG")
        return buffer.getvalue()


class Locator:
    """Finds phrases in pictures. ``set_image`` does the work once; any number of phrases may follow.

    A phrase that names nothing in the picture gets a box all the same, around the regions that are least unlike it:
    CLIP's cosines have no zero that means "absent".  Compare ``score`` between phrases, on one picture and one model.

    Args:
        weights, arch, quick_gelu: see ``ovseg.towers.load_tower``; None is the embedded demo model.
        alpha: price of area; larger gives tighter boxes.  The paper: 0.75 and 0.8 (ViT-L/14, Flickr30k and Visual
            Genome), 0.8 and 0.85 (ViT-B/16), 0.9 (ViT-B/32).
        temperature: of the heat map; smaller stresses the best regions.  The paper: 0.01 (ViT-B/16), 0.02 (ViT-L/14).
        upsample, start_block: see ``MaskedTokens``; ``upsample`` None is 2, or 1 where ``size`` already gives more
            tokens than the training did.
        counts: superpixels per segmentation.
        size: side in pixels of the square the picture is squashed to; None takes what suits the weights: the short side
            their card names, else that of their training.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        tower: a loaded tower instead of ``weights``.
        cache: keep text embeddings on disk.

    Raises:
        ValueError: unknown weights or device, a tower that is not a ViT with a class token, a setting out of range.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """

    def __init__(
        self,
        weights: str | None = None,
        *,
        alpha: float = 0.8,
        temperature: float = 0.01,
        upsample: int | None = None,
        start_block: int = 0,
        counts: Sequence[int] = SEGMENT_COUNTS,
        size: int | None = None,
        device: str = "auto",
        arch: str | None = None,
        quick_gelu: bool | None = None,
        tower: Tower | None = None,
        cache: bool = True,
    ):
        if tower is None:
            tower = load_tower(weights, pick_device(device), arch=arch, quick_gelu=quick_gelu)
        self.tower = tower
        self.alpha, self.temperature, self.counts = alpha, temperature, tuple(counts)
        self.size = tower.card.protocol.get("short_side", tower.image_size) if size is None else size
        if upsample is None:
            upsample = 2 if self.size <= tower.image_size else 1
        self.regions = MaskedTokens(upsample, start_block)
        if not (temperature > 0 and 0 <= alpha < 1 and self.size >= tower.stride and self.counts):
            raise ValueError(
                f"a locator needs temperature > 0, 0 <= alpha < 1, a size of at least one patch ({tower.stride} "
                f"pixels) and counts of superpixels; got temperature={temperature}, alpha={alpha}, size={self.size}, "
                f"counts={self.counts}."
            )
        self.regions.grid_of(tower, torch.empty(1, 3, self.size, self.size))  # an unfit tower is refused at once
        self.encoder = _PhraseEncoder(tower, "name", EmbeddingCache() if cache else None)
        self._image: LoadedImage | None = None
        if tower.card.notice:
            _say_once(tower.card.notice)

    def set_image(self, image: Any) -> "Locator":
        """Read a picture (path, URL, PIL, RGB numpy array, tensor) and embed its regions. Returns itself.

        Raises:
            ImageError: not a readable picture.
        """
        loaded = load_image(image)
        squashed = Image.fromarray(loaded.array).resize((self.size, self.size), Image.Resampling.BICUBIC)
        pixels = np.asarray(squashed)
        self._maps = superpixels(pixels, self.counts)
        self._features = self._embed(pixels, self._maps)
        self._image = loaded
        return self

    def locate(self, phrase: str | Sequence[str]) -> Location | list[Location]:
        """The place of a phrase in the picture last set; of a list of phrases, one for each in their order.

        Raises:
            ValueError: no picture yet, or a phrase that is blank or too long.
        """
        if self._image is None:
            raise ValueError("there is no picture to look at yet; first call set_image(...).")
        phrases = [phrase] if isinstance(phrase, str) else list(phrase)
        if not phrases or any(not isinstance(p, str) or not p.strip() for p in phrases):
            raise ValueError(f'phrases are words such as "a red umbrella", one or a list of them; got {phrase!r}.')
        text = self.encoder(phrases)
        scores = (text @ self._features.T).float().cpu().numpy()
        found = [self._location(p, s) for p, s in zip(phrases, scores, strict=True)]
        return found[0] if isinstance(phrase, str) else found

    def __call__(self, image: Any, phrase: str | Sequence[str]) -> Location | list[Location]:
        """``set_image`` and ``locate`` in one."""
        return self.set_image(image).locate(phrase)

    @property
    def settings(self) -> dict:
        card = self.tower.card
        return {
            "method": "adapting-clip",
            "weights": f"{card.name} ({card.hash})",
            "alpha": self.alpha,
            "temperature": self.temperature,
            "upsample": self.regions.upsample,
            "start_block": self.regions.start_block,
            "counts": list(self.counts),
            "size": self.size,
        }

    def _embed(self, pixels: np.ndarray, maps: np.ndarray) -> Tensor:
        """Unit embeddings (R, E) of the superpixels of one squashed picture."""
        images = torch.from_numpy(np.array(pixels)).to(self.tower.device).permute(2, 0, 1)[None] / 255
        images = self.tower.normalise(images)
        ids = nearest(torch.from_numpy(maps), self.regions.grid_of(self.tower, images)).numpy()
        cells = np.zeros((int(maps.max()) + 1, *ids.shape[1:]), dtype=bool)
        cells[: int(ids.max()) + 1] = as_masks(ids)  # regions may have vanished on the token grid
        # Many superpixels are the same few tokens: each such set is embedded once.
        _, kept, which = np.unique(
            np.packbits(cells.reshape(len(cells), -1), axis=1), axis=0, return_index=True, return_inverse=True
        )
        features = self.regions.encode(self.tower, images, torch.from_numpy(cells[kept])[None])
        features = features[:, torch.from_numpy(which.reshape(-1)).to(features.device)]
        return F.normalize(features[0].float(), dim=-1)

    def _location(self, phrase: str, scores: np.ndarray) -> Location:
        heat = heat_map(scores, self._maps, self.temperature)
        found = search_box(heat, self.alpha)
        inside = self._maps[:, found.y1 : found.y2 + 1, found.x1 : found.x2 + 1]
        height, width = self._image.array.shape[:2]
        across, down = width / self.size, height / self.size
        return Location(
            phrase=phrase,
            box=(found.x1 * across, found.y1 * down, (found.x2 + 1) * across, (found.y2 + 1) * down),
            score=float(scores[np.unique(inside)].max()),
            objective=found.objective,
            heat=heat,
            image=self._image.array,
            settings=self.settings,
            path=self._image.path,
        )


class _PhraseEncoder(TextEncoder):
    """Phrases as they are, without template; "a bus" counts as known where "bus" is."""

    def check(self, words: Sequence[str]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().check(words)
        super().check([re.sub(r"^\s*(an?|the)\s+", "", word, flags=re.IGNORECASE) for word in words])


def save_locations(
    locations: Sequence[Location], folder: str | Path, stem: str | None = None, picture: Image.Image | None = None
) -> dict[str, Path]:
    """``<stem>_boxes.png`` with all boxes and ``<stem>_boxes.json`` for the phrases of one picture.

    Args:
        locations: of one picture, at least one.
        folder: made if it does not exist.
        stem: beginning of the file names; that of the picture by default.
        picture: what to save as PNG; the boxes of all phrases by default.

    Raises:
        ValueError: no location, a stem with a folder in it, a folder that is a file.
    """
    if not locations:
        raise ValueError("there is nothing to save: give at least one location.")
    first, folder = locations[0], Path(folder)
    stem = unique_stems([first.path])[0] if stem is None else stem
    if not stem or Path(stem).name != stem:
        raise ValueError(f"a stem is the beginning of a file name, without folder, got {stem!r}.")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot save into {folder}: it is a file. Give a folder; it is made if need be.")
    paths = {"boxes": folder / f"{stem}_boxes.png", "json": folder / f"{stem}_boxes.json"}
    height, width = first.image.shape[:2]
    if picture is None:
        picture = draw_boxes(first.image, [each.box for each in locations], [each.phrase for each in locations])
    record = {
        "format": "ovseg-locations",
        "format_version": 1,
        "image": {"path": None if first.path is None else str(first.path), "width": width, "height": height},
        **first.settings,
        "locations": [each.to_dict() for each in locations],
        "files": {"boxes": paths["boxes"].name},
    }
    with atomic_write(paths["boxes"]) as temporary:
        picture.save(temporary, "PNG")
    with atomic_write(paths["json"]) as temporary:
        # A file name that is not UTF-8 reaches us with lone surrogates; as \udcxx they are valid JSON.
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
    return paths
