"""Resizing of a position table (1 + g_h·g_w, D) to an h×w grid: the modes found in the literature.

==============  ========================================================================================================
``exact``       bicubic to (h, w).  MaskCLIP, CLIP-DINOiser.
``scale``       bicubic by the factors ((h + 0.1) / g_h, (w + 0.1) / g_w), whose sampling points use those factors
                instead of h / g_h.  DINO's recipe; SCLIP, ClearCLIP, NACLIP, ProxyCLIP, CLIPtrase, ResCLIP.
``antialias``   bicubic to (h, w) with an anti-aliasing filter.  GEM.
``scale_count`` as ``scale``, but like those reference codes it looks at the number of tokens only: a grid of another
                shape with as many patches as the table keeps the table as it is.
``bilinear``    bilinear to (h, w).  DenseCLIP.
==============  ========================================================================================================

The modes are not interchangeable: on a 4×4 table and a 5×7 target they move the final features by several per cent.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = ("exact", "scale", "antialias", "scale_count", "bilinear")


def square_grid(patches: int) -> tuple[int, int]:
    """(g, g) of a table for that many patches, of which nothing else is recorded.

    Raises:
        ValueError: a number that is not a square.
    """
    side = math.isqrt(patches)
    if side * side != patches:
        raise ValueError(
            f"the position table holds {patches} patches, which are not a square, and nothing says how many rows and "
            "columns they are: the record image_size, [H, W] in pixels, of the vision_cfg is missing. Give the folder "
            "with the weights' open_clip_config.json, or the architecture that they were made for."
        )
    return side, side


def recorded_grid(patches: int, image_size: int | tuple[int, int] | None, stride: int) -> tuple[int, int]:
    """(g_h, g_w) of a table from the recorded image size in pixels, square where there is none.

    Raises:
        ValueError: see ``square_grid``.
    """
    if image_size is None:
        return square_grid(patches)
    height, width = as_size(image_size)
    return height // stride, width // stride


def as_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """A side or (H, W) as (H, W)."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def as_recorded(size: tuple[int, int]) -> int | list[int]:
    """(H, W) as configs write it: one number for a square."""
    return size[0] if size[0] == size[1] else list(size)


def resize_positions(
    table: Tensor, grid: tuple[int, int], mode: str = "scale", table_grid: tuple[int, int] | None = None
) -> Tensor:
    """Resize the patch part of a position table.

    Args:
        table: (1 + g_h·g_w, D), the class token's row first.
        grid: target (h, w).
        mode: one of ``MODES``.
        table_grid: (g_h, g_w); None: it is square.

    Returns:
        (1 + h·w, D); the class token's row is untouched.

    Raises:
        ValueError: unknown mode, or a table that is not that of its grid.
    """
    if mode not in MODES:
        raise ValueError(f"unknown way to resize position embeddings: {mode!r}; choose one of {', '.join(MODES)}.")
    (h, w), count = grid, len(table) - 1
    rows, columns = square_grid(count) if table_grid is None else table_grid
    if rows * columns != count:
        raise ValueError(f"a position table of {count} patches is not one of {rows}×{columns}.")
    if (h, w) == (rows, columns) or (mode == "scale_count" and h * w == count):
        return table
    patches = table[1:].float().T.reshape(1, -1, rows, columns)
    if mode in ("exact", "bilinear"):
        kind = "bicubic" if mode == "exact" else "bilinear"
        patches = F.interpolate(patches, (h, w), mode=kind, align_corners=False)
    elif mode == "antialias":
        patches = F.interpolate(patches, (h, w), mode="bicubic", align_corners=False, antialias=True)
    else:
        factors = (h + 0.1) / rows, (w + 0.1) / columns
        patches = F.interpolate(
            patches, scale_factor=factors, mode="bicubic", align_corners=False, recompute_scale_factor=False
        )
    return torch.cat([table[:1], patches.flatten(2)[0].T.to(table.dtype)])
