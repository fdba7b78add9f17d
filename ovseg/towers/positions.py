"""Resizing of a position table (1 + g·g, D) to an h×w grid: the modes found in the literature.

==============  ========================================================================================================
``exact``       bicubic to (h, w).  MaskCLIP, CLIP-DINOiser.
``scale``       bicubic by the factors ((h + 0.1) / g, (w + 0.1) / g), whose sampling points use those factors instead
                of h / g.  DINO's recipe; SCLIP, ClearCLIP, NACLIP, ProxyCLIP, CLIPtrase, ResCLIP.
``antialias``   bicubic to (h, w) with an anti-aliasing filter.  GEM.
``scale_count`` as ``scale``, but like those reference codes it looks at the number of tokens only: a grid of another
                shape with as many patches as the table keeps the table as it is.
``bilinear``    bilinear to (h, w).  DenseCLIP.
==============  ========================================================================================================

The modes are not interchangeable: on a 4×4 table and a 5×7 target they move the final features by several per cent.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MODES = ("exact", "scale", "antialias", "scale_count", "bilinear")


def resize_positions(table: Tensor, grid: tuple[int, int], mode: str = "scale") -> Tensor:
    """Resize the patch part of a position table.

    Args:
        table: (1 + g·g, D), the class token's row first.
        grid: target (h, w).
        mode: one of ``MODES``.

    Returns:
        (1 + h·w, D); the class token's row is untouched.

    Raises:
        ValueError: unknown mode.
    """
    if mode not in MODES:
        raise ValueError(f"unknown way to resize position embeddings: {mode!r}; choose one of {', '.join(MODES)}.")
    h, w = grid
    g = round((table.shape[0] - 1) ** 0.5)
    if (h, w) == (g, g) or (mode == "scale_count" and h * w == g * g):
        return table
    patches = table[1:].float().T.reshape(1, -1, g, g)
    if mode in ("exact", "bilinear"):
        kind = "bicubic" if mode == "exact" else "bilinear"
        patches = F.interpolate(patches, (h, w), mode=kind, align_corners=False)
    elif mode == "antialias":
        patches = F.interpolate(patches, (h, w), mode="bicubic", align_corners=False, antialias=True)
    else:
        factors = (h + 0.1) / g, (w + 0.1) / g
        patches = F.interpolate(
            patches, scale_factor=factors, mode="bicubic", align_corners=False, recompute_scale_factor=False
        )
    return torch.cat([table[:1], patches.flatten(2)[0].T.to(table.dtype)])
