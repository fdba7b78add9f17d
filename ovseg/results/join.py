"""Detections of several parts of a picture, or of several detectors on it, as one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ovseg.text.union import unite

from . import rle
from .provenance import merge_provenance

if TYPE_CHECKING:
    from .detections import Detections


def join(
    parts: Sequence["Detections"], offsets: Sequence[tuple[int, int]] | None, size: tuple[int, int] | None
) -> dict[str, Any]:
    """The fields of ``Detections.merge(parts, offsets, size)``, which tells arguments and errors."""
    if not parts:
        raise ValueError("merge takes the detections of one or more parts of a picture, got none.")
    pairs = list(zip(parts, _corners(parts, offsets), strict=True))
    height = max(top + part.size[0] for part, (_, top) in pairs)
    width = max(left + part.size[1] for part, (left, _) in pairs)
    whole = (height, width) if size is None else (int(size[0]), int(size[1]))
    if height > whole[0] or width > whole[1]:
        raise ValueError(f"the parts reach to (H, W) = {(height, width)}, beyond the picture of {whole}.")
    masked = {part.masks is not None for part in parts if len(part)} or {parts[0].masks is not None}
    if len(masked) > 1:
        raise ValueError("some of the detections to merge have masks and some boxes alone: see without_masks().")
    vocabulary, ids = unite([part.vocabulary for part in parts])
    images = [part.image for part in parts if part.image is not None and part.size == whole]
    return dict(
        boxes=np.concatenate([part.boxes + np.array([*corner, *corner], np.float32) for part, corner in pairs]),
        scores=np.concatenate([part.scores for part in parts]),
        labels=np.concatenate([np.array(new)[part.labels] for new, part in zip(ids, parts, strict=True)]),
        vocabulary=vocabulary,
        size=whole,
        masks=[rle.place(mask, corner, whole) for part, corner in pairs for mask in part.masks or ()]
        if masked == {True}
        else None,
        image=images[0] if images else None,
        provenance=merge_provenance([part.provenance for part in parts], vocabulary.hash),
        path=parts[0].path if all(part.path == parts[0].path for part in parts) else None,
    )


def _corners(parts: Sequence["Detections"], offsets: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """Where the parts begin in the picture, (x, y)."""
    if offsets is None:
        sizes = sorted({part.size for part in parts})
        if len(sizes) > 1:
            raise ValueError(
                f"the detections to merge are of pictures of the sizes (H, W) {', '.join(map(str, sizes))}: of parts "
                "of one picture give offsets=[(x, y), …] too."
            )
        return [(0, 0)] * len(parts)
    corners = np.array(offsets, ndmin=2)
    if corners.shape != (len(parts), 2) or corners.dtype.kind not in "iu" or corners.min() < 0:
        raise ValueError(f"offsets are {len(parts)} pairs (x, y) of whole numbers from 0 on, got {offsets!r:.100}.")
    return [(int(x), int(y)) for x, y in corners]
