"""Any detector on overlapping slices of a picture, for things that are small in it.

    slices      squares of ``slice`` pixels whose neighbors share ``overlap`` of a side, the last ones shifted inwards
    detections  those of every slice, moved to where they are in the picture
    cut         a box that ends where its slice does shows part of a thing; it goes if a box of its class that is whole
                in another slice covers a larger share of it than ``nms``
    suppressed  of boxes of a class from different slices, as the detector does within a slice: the one of the lower
                score where the IoU is above ``nms``, or one inside the other by more than ``inside``

Where no thing crosses an edge of a slice the detections are those of the slices by themselves.  A thing larger than the
overlap may lie whole in no slice, one larger than a slice never does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.dense.windows import Box, windows
from ovseg.pictures.images import LoadedImage
from ovseg.results import rle
from ovseg.results.provenance import Provenance
from ovseg.text.vocabulary import Vocabulary

from .box_settings import BoxSettings
from .detect import Found
from .protocol import digest

AT_EDGE = 1.0  # pixels between a box and an edge that cuts it


@dataclass(frozen=True)
class SliceSettings:
    """How a picture is cut into slices.

    slice    side of a slice in pixels
    overlap  share of a side that neighbors have in common, in [0, 1)

    Raises:
        ValueError: a setting out of its range.
    """

    slice: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        whole = isinstance(self.slice, int) and not isinstance(self.slice, bool) and self.slice >= 1
        share = isinstance(self.overlap, Real) and not isinstance(self.overlap, bool) and 0 <= self.overlap < 1
        if not (whole and share):
            raise ValueError(
                "slice is the side of a slice in pixels, a whole number from 1 on, and overlap a share in [0, 1) "
                f"(slice=640, overlap=0.2); got slice={self.slice!r}, overlap={self.overlap!r}."
            )

    @classmethod
    def split(cls, settings: Mapping[str, Any]) -> tuple["SliceSettings | None", dict[str, Any]]:
        """The part of settings that is about slices, None where there is none, and the other settings.

        Raises:
            ValueError: an overlap without a slice, or settings out of their range.
        """
        rest = dict(settings)
        own = {name: rest.pop(name) for name in ("slice", "overlap") if rest.get(name) is not None}
        rest = {name: value for name, value in rest.items() if name not in ("slice", "overlap")}
        if own and "slice" not in own:
            raise ValueError(f"overlap={own['overlap']!r} is that of slices: give slice too, such as slice=640.")
        return (cls(**own) if own else None), rest

    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """Slices (top, left, bottom, right) that cover a picture of ``size`` (H, W), row by row."""
        return windows(*size, self.slice, max(1, round(self.slice * (1 - self.overlap))))

    def to_dict(self) -> dict[str, Any]:
        return {"slice": self.slice, "overlap": float(self.overlap)}


@dataclass
class EncodedSlices:
    """A picture of which every slice is encoded.

    slices  what the detector's ``encode`` returned, slice by slice
    size    (H, W) of the picture
    source  the picture as it was read; None where only its pixels were given
    """

    slices: list[Any]
    size: tuple[int, int]
    source: LoadedImage | None = None


class SlicedDetector:
    """An engine of ``ovseg.apis.Detector`` that runs another one on slices.

    Args:
        engine: of any detector: ``read``, ``encode``, ``decode``, ``provenance`` and ``settings``.
        slices: how pictures are cut.
    """

    boxes = True

    def __init__(self, engine: Any, slices: SliceSettings):
        self.engine, self.slices, self.settings = engine, slices, engine.settings

    @property
    def method(self) -> str:
        return self.engine.method

    @property
    def pipeline(self) -> Any:
        """Of detectors that have one."""
        return self.engine.pipeline

    def provenance(self, vocabulary: Vocabulary | None) -> Provenance:
        """What its detections are made with, whatever the picture."""
        base, own = self.engine.provenance(vocabulary), self.slices.to_dict()
        fingerprint = digest(own | {"fingerprint": base.fingerprint})
        return replace(base, protocol=dict(base.protocol) | own, fingerprint=fingerprint)

    def read(self, vocabulary: Vocabulary, progress=None) -> Any:
        """Encode a vocabulary, as the detector does."""
        return self.engine.read(vocabulary, progress)

    def encode(self, image: np.ndarray) -> EncodedSlices:
        """Run the tower over the slices of one uint8 RGB picture (H, W, 3)."""
        size = image.shape[:2]
        parts = [image[top:bottom, left:right] for top, left, bottom, right in self.slices.boxes(size)]
        return EncodedSlices([self.engine.encode(np.ascontiguousarray(part)) for part in parts], size)

    def decode(self, picture: EncodedSlices, words: Any, **regions: Any) -> Found:
        """Detections of the words in the whole picture.

        Raises:
            ValueError: boxes or masks to choose from.
        """
        if regions:
            raise ValueError(
                f"{', '.join(regions)}: regions that are given are looked at in the whole picture. Leave out slice."
            )
        parts = [self.engine.decode(part, words) for part in picture.slices]
        places = torch.tensor(self.slices.boxes(picture.size))[:, [1, 0, 3, 2]].float()  # x1, y1, x2, y2
        origin = torch.arange(len(parts)).repeat_interleave(torch.tensor([len(part.scores) for part in parts]))
        boxes = torch.cat([part.boxes.float() for part in parts]) + places[origin][:, [0, 1, 0, 1]]
        scores, labels = torch.cat([part.scores for part in parts]), torch.cat([part.labels for part in parts])
        height, width = picture.size
        inner = places[origin] != torch.tensor([0, 0, width, height])
        cut = (((boxes - places[origin]).abs() <= AT_EDGE) & inner).any(1)
        best = _best(self.settings, boxes, scores, labels, origin, cut)
        outlines = None
        if all(part.masks is not None for part in parts):
            masks = [mask for part in parts for mask in part.masks or ()]
            corners = [(int(x), int(y)) for x, y in places[origin[best], :2].tolist()]
            outlines = [rle.place(masks[i], at, picture.size) for i, at in zip(best.tolist(), corners, strict=True)]
        return Found(boxes[best], scores[best], labels[best], outlines)


def _best(settings: BoxSettings, boxes: Tensor, scores: Tensor, labels: Tensor, origin: Tensor, cut: Tensor) -> Tensor:
    """Indices of the detections that are left, the best first.

    Args:
        boxes, scores, labels: (R, 4), (R,), (R,) in the whole picture.
        origin: (R,) the slice of each.
        cut: (R,) bool, whether it ends where its slice does.
    """
    left, area = torch.ones_like(cut), (boxes[:, 2:] - boxes[:, :2]).prod(1)

    def rivals(i: int, among: Tensor) -> tuple[Tensor, Tensor]:
        """Detections of the class of one in other slices, and what they have in common with it in square pixels."""
        others = (among & (labels == labels[i]) & (origin != origin[i])).nonzero()[:, 0]
        low, high = torch.maximum(boxes[others, :2], boxes[i, :2]), torch.minimum(boxes[others, 2:], boxes[i, 2:])
        return others, (high - low).clamp(min=0).prod(1)

    for i in cut.nonzero()[:, 0].tolist():
        left[i] = not (rivals(i, ~cut)[1] > settings.nms * area[i]).any()
    order = scores.argsort(descending=True, stable=True)
    for i in order.tolist():
        if left[i]:
            others, common = rivals(i, left)
            gone = common > settings.nms * (area[i] + area[others] - common)
            if settings.inside < 1:
                gone |= common > settings.inside * torch.minimum(area[i], area[others])
            left[others[gone]] = False
    return order[left[order]][: settings.max_detections]
