"""The regions of CLIPSelf (Wu et al., ICLR 2024), its crops and its loss.

grid     (m, n) drawn from all with m ≤ M and ⌈m/2⌉ ≤ n ≤ min(2m, M); at most 20 of its m·n cells, in random order
boxes    at most 20 of those with 8² ≤ area ≤ 1024², in random order
crop     of the box, enlarged about its center where wanted, resized to fit the size of the tower, centered on black
ℓ = 1 − mean_r cos(s_r, t_r),   s the student's region features, t the teacher's image embeddings of the crops

The draws come from torch's global generator, so a resumed run draws what an uninterrupted one would.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.towers.positions import as_size


def grids(max_split: int = 6) -> list[tuple[int, int]]:
    """All (rows, columns) that may be drawn."""
    return [(m, n) for m in range(1, max_split + 1) for n in range((m + 1) // 2, min(2 * m, max_split) + 1)]


def grid_cells(rows: int, columns: int, size: tuple[int, int]) -> Tensor:
    """Cells of a grid over an image of ``size`` (H, W): boxes (rows·columns, 4), x1, y1, x2, y2, row by row."""
    y, x = (torch.linspace(0, length, parts + 1) for length, parts in zip(size, (rows, columns), strict=True))
    top, left = torch.meshgrid(y[:-1], x[:-1], indexing="ij")
    down, right = torch.meshgrid(y[1:], x[1:], indexing="ij")
    return torch.stack([left, top, right, down], -1).flatten(0, 1)


def draw_cells(size: tuple[int, int], max_split: int = 6, most: int = 20) -> Tensor:
    """Cells (R, 4) of a random grid over an image of ``size`` (H, W), at most ``most``."""
    choices = grids(max_split)
    cells = grid_cells(*choices[int(torch.randint(len(choices), ()))], size)
    return cells[torch.randperm(len(cells))[:most]]


def draw_boxes(boxes: Tensor, size: tuple[int, int], sides: tuple[float, float] = (8, 1024), most: int = 20) -> Tensor:
    """At most ``most`` of the boxes (R, 4), clipped to an image of ``size`` (H, W); the whole image if none remain.

    ``sides``: side in pixels of the squares whose area bounds that of a box.
    """
    height, width = size
    boxes = boxes.cpu().float()
    boxes = boxes[boxes.isfinite().all(1)].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    boxes = boxes[(area >= max(sides[0], 1) ** 2) & (area <= sides[1] ** 2)]
    boxes = boxes[torch.randperm(len(boxes))[:most]]
    return boxes if len(boxes) else torch.tensor([[0.0, 0, width, height]])


def fitted_crops(picture: Tensor, boxes: Tensor, size: int | tuple[int, int], enlarge: float = 1.0) -> Tensor:
    """Crops of boxes, each resized (bicubic, anti-aliased) to fit a frame and centered on black.

    Args:
        picture: (3, H, W) RGB in [0, 1].
        boxes: (R, 4) x1, y1, x2, y2 in pixels, rounded to whole ones.
        size: (H', W') of the frame in pixels, one number for a square.
        enlarge: factor on both sides of a box about its center, within the image.

    Returns:
        (R, 3, H', W') RGB in [0, 1].
    """
    height, width = picture.shape[1:]
    center, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * enlarge / 2
    limits = torch.tensor([width, height], device=boxes.device)
    low = (center - half).clamp(min=0).minimum(limits - 1).round().long().tolist()
    high = (center + half).minimum(limits).round().long().tolist()
    frame = as_size(size)
    crops = picture.new_zeros(len(boxes), 3, *frame)
    for crop, (left, top), (right, bottom) in zip(crops, low, high, strict=True):
        piece = picture[None, :, top : max(bottom, top + 1), left : max(right, left + 1)]
        factor = min(there / here for there, here in zip(frame, piece.shape[2:], strict=True))
        h, w = (max(1, round(length * factor)) for length in piece.shape[2:])
        piece = F.interpolate(piece, (h, w), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        y, x = (frame[0] - h) // 2, (frame[1] - w) // 2
        crop[:, y : y + h, x : x + w] = piece[0]
    return crops


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − the mean cosine of two (R, E), row by row; zero without rows."""
    return 1 - F.cosine_similarity(student, teacher).mean() if len(student) else student.sum()
