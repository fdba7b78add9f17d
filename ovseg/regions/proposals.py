"""Training-free boxes and masks from score maps.

    regions of class k, share a:  8-connected components of { p_k ≥ max(a · max p_k, floor) },   a = 0.2, 0.35, …, 0.8
    contrast of a region:         [mean of p_k inside − mean of p_k in the ring around]₊

Several fractions of the peak give nested regions, of which later scoring selects the best.  Touching objects of one
class are one region; a lower fraction joins what a higher one separates.  The ring is the region's box, 1.5 times as
wide and high about its center, without the region.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from .pooling import pool_masks

SHARES = (0.2, 0.35, 0.5, 0.65, 0.8)
RING = 1.5


class Proposals(NamedTuple):
    """R regions of an image.

    boxes   (R, 4) x1, y1, x2, y2, edges in cells of the grid, float32
    masks   (R, h, w) on that grid, boolean or shares of the cells
    labels  (R,) the class whose map the region comes from, int64
    """

    boxes: Tensor
    masks: Tensor
    labels: Tensor


def score_regions(
    scores: Tensor, shares: Sequence[float] = SHARES, floor: float = 0.0, area: float = 4, most: int = 1000
) -> Proposals:
    """Connected regions of the map of every class.

    Args:
        scores: (K, h, w), non-negative; values that are not finite count as zero.
        shares: fractions of the peak of a class, each in (0, 1].
        floor: classes with a lower peak have no regions, and no region has values below it.
        area: smallest region in cells.
        most: largest number of regions, those with the highest peaks.

    Raises:
        ValueError: an invalid shape, or fractions or numbers out of range.
    """
    if scores.ndim != 3 or not shares or not all(0 < share <= 1 for share in shares) or area < 0 or most < 1:
        raise ValueError(
            "score_regions takes maps (K, h, w), shares of the peak in (0, 1], an area from 0 and most from 1 on; got "
            f"{tuple(scores.shape)}, {shares=}, {area=}, {most=}."
        )
    maps = scores.detach().float().nan_to_num(0, 0, 0)
    peaks = maps.flatten(1).amax(1) if maps.numel() else maps.new_zeros(len(maps))
    order = peaks.argsort(descending=True, stable=True)
    order = order[(peaks[order] >= floor) & (peaks[order] > 0)]
    boxes: list[tuple[int, ...]] = []
    masks: list[np.ndarray] = []
    labels: list[int] = []
    for k in order.tolist():
        if len(labels) >= most:
            break
        one, seen = maps[k].cpu().numpy(), set()
        for share in sorted(shares):
            for box, mask in _components(one >= np.float32(max(share * float(peaks[k]), floor)), area):
                if mask.tobytes() not in seen:  # else it is the same region at another share
                    seen.add(mask.tobytes())
                    boxes.append(box)
                    masks.append(mask)
                    labels.append(k)
    shape = (min(len(labels), most), *maps.shape[1:])
    return Proposals(
        torch.tensor(boxes[:most], dtype=torch.float32, device=scores.device).reshape(-1, 4),
        torch.from_numpy(np.array(masks[:most], bool).reshape(shape)).to(scores.device),
        torch.tensor(labels[:most], dtype=torch.long, device=scores.device),
    )


def _components(mask: np.ndarray, area: float) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Box and mask of each 8-connected part of at least ``area`` cells."""
    _, ids, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    rows: Any = stats.tolist()
    for number, (x, y, width, height, size) in enumerate(rows):
        if number and size >= area:
            yield (x, y, x + width, y + height), ids == number


def mask_boxes(masks: Tensor) -> Tensor:
    """Bounding boxes (R, 4) float32 of masks (R, h, w), edges in cells; zeros for empty masks."""
    edges = []
    for axis in (1, 2):  # what the columns and the rows hold
        line = masks.bool().any(axis)
        indices = torch.arange(line.shape[1], device=masks.device)
        low = torch.where(line, indices, line.shape[1]).amin(1)
        edges.append((torch.where(line.any(1), low, 0), torch.where(line, indices + 1, 0).amax(1)))
    (left, right), (top, bottom) = edges
    return torch.stack([left, top, right, bottom], 1).float()


def box_masks(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """Fraction of each cell, (R, h, w) in [0, 1], that lies in boxes (R, 4) in cells."""
    shares = []
    for axis, cells in ((1, grid[0]), (0, grid[1])):
        edge = torch.arange(cells, device=boxes.device)
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        shares.append((torch.minimum(high, edge + 1) - torch.maximum(low, edge)).clamp(0, 1))
    return shares[0][:, :, None] * shares[1][:, None]


def enlarged(boxes: Tensor, factor: float = RING) -> Tensor:
    """Boxes (R, 4), enlarged by ``factor`` about their centers."""
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
    return torch.cat([center - half, center + half], 1)


def contrast(scores: Tensor, boxes: Tensor, masks: Tensor) -> Tensor:
    """How much higher the score of each class is inside a region than around it, (R, K).

    Args:
        scores: (K, h, w) probabilities.
        boxes: (R, 4) of the regions in cells of that grid; the ring lies in the box enlarged by ``RING``.
        masks: (R, h, w) boolean or fractions; a region without surroundings is compared with zero.
    """
    differences = [scores.new_zeros(0, len(scores))]
    for box, mask in zip(boxes.split(256), masks.split(256), strict=True):
        inside = mask.to(scores.dtype)
        around = (box_masks(enlarged(box), (scores.shape[1], scores.shape[2])) - inside).clamp(min=0)
        mean_in, mean_out = (pool_masks(scores[None], [weights]) for weights in (inside, around))
        differences.append((mean_in - mean_out).clamp(min=0))
    return torch.cat(differences)


def outermost(boxes: Tensor, labels: Tensor, share: float) -> Tensor:
    """The boxes (R, 4), best first, that remain when the later of two boxes of one class is dropped if the smaller
    lies inside the larger by more than ``share`` of its area: indices (R',)."""
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    removed, selected = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device), []
    for i in range(len(boxes)):
        if not removed[i]:
            selected.append(i)
            low, high = torch.maximum(boxes[:, :2], boxes[i, :2]), torch.minimum(boxes[:, 2:], boxes[i, 2:])
            common = (high - low).clamp(min=0).prod(1)
            removed |= (labels == labels[i]) & (common > share * torch.minimum(area, area[i]))
    return torch.tensor(selected, dtype=torch.long, device=boxes.device)
