"""Trident: windows are spliced before the projection (Shi et al., "Harnessing Vision Foundation Models …", ICCV 2025).

    in every window     z = O(A v) with ProxyCLIP's A
    over the image      z averaged where windows overlap, on one grid
    global              z ← Ā z,   Ā = mean over heads of a·[cos(v_i, v_j) > θ_i], rows to sum 1,
                        θ_i = 1.2 · mean_j mean_heads cos(v_i, v_j), at most 0.9, and 0.6 where it is negative
                        (a, v: attention and values of SAM's last global block)
    f = proj(ln_post(z))

Without SAM, the global step is skipped.  The refinement of masks by SAM's decoder is not implemented.  The parts
without SAM are tested; those with SAM are not yet measured.
"""

from collections.abc import Callable
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import DENSE
from ovseg.towers import Tower

from .base import to_grid
from .features import DenseFeatures, pad_to_patches
from .proxyclip import ProxyCLIP
from .windows import Box, windows


def global_weights(
    attention: Tensor, values: Tensor, factor: float = 1.2, most: float = 0.9, rest: float = 0.6
) -> Tensor:
    """Ā (B, M, M) of another network's attention (B, heads, M, M) and values (B, heads, M, d); rows sum to 1.

    A row without any entry above the threshold becomes a row of the identity.
    """
    unit = F.normalize(values, dim=-1)
    cosine = unit @ unit.transpose(-2, -1)
    threshold = factor * cosine.mean(1).mean(-1)
    threshold = torch.where(threshold < 0, rest, threshold.clamp(max=most))
    weights = torch.where(cosine > threshold[:, None, :, None], attention, 0).mean(1)
    total = weights.sum(-1, keepdim=True)
    own = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    return torch.where(total > 0, weights / total.clamp(min=1e-12), own)


@DENSE.register_module()
class Trident(ProxyCLIP):
    """Spliced windows of ProxyCLIP, and an optional global step with SAM's attention.

    Args:
        window, stride: side and step of the windows in pixels, rounded down to whole patches.
        aggregate: a function from the normalized images (B, 3, H, W) to (attention, values, (h, w)) of a network over
            the whole image; None skips the global step.
        **options: see ``ProxyCLIP``.
    """

    name = "trident"
    paper = "Trident, ICCV 2025"
    protocol = dict(short_side=336, window=None, logit_scale=40)

    def __init__(self, window: int = 336, stride: int = 224, aggregate: Callable | None = None, **options):
        super().__init__(**options)
        if not 1 <= stride <= window:
            raise ValueError(f"Trident: stride is from 1 to the window, got window={window}, stride={stride}.")
        self.window, self.stride, self.aggregate = window, stride, aggregate

    def spliced(self, tower: Tower, images: Tensor) -> Tensor:
        """z (B, D, h, w) of the whole image, before the last normalization."""
        patch = tower.stride
        h, w = tower.grid_of(*images.shape[2:])
        side, step = max(1, self.window // patch), max(1, self.stride // patch)

        def within(box: Box) -> Tensor:
            top, left, bottom, right = box
            crop = images[:, :, top * patch : bottom * patch, left * patch : right * patch]
            state = tower.advance(tower.start(crop, self.positions), -1, self.proxy.taps)
            return self.mixed(tower, state, self.proxy(tower, crop, state), (bottom - top, right - left))

        boxes = windows(h, w, side, step)
        maps = map(within, boxes)
        first = next(maps)
        total, counts = first.new_zeros(len(first), first.shape[1], h, w), first.new_zeros(h, w)
        for (top, left, bottom, right), z in zip(boxes, chain([first], maps), strict=True):
            total[:, :, top:bottom, left:right] += z
            counts[top:bottom, left:right] += 1
        return total / counts

    def forward(self, tower: Tower, images: Tensor, external: Tensor | None = None) -> DenseFeatures:
        """Dense features of normalized images (B, 3, H, W) of any size.

        Raises:
            ValueError: external features, which do not cover single windows.
        """
        if external is not None:
            raise ValueError("Trident runs its proxy on every window: pass proxy=… instead of external features.")
        state, padding = self.start(tower, images)
        images, _ = pad_to_patches(images, tower.stride, self.padding, tower.preprocess)
        state = tower.advance(state, -1, self.proxy.taps)
        if max(images.shape[2:]) <= self.window:  # one window: the tower has run over it already
            z = self.mixed(tower, state, self.proxy(tower, images, state), state.grid)
        else:
            z = self.spliced(tower, images)
        if self.aggregate is not None:
            attention, values, grid = self.aggregate(images)
            z = F.interpolate(z, grid, mode="bilinear", align_corners=False)
            z = (global_weights(attention, values).to(z.dtype) @ z.flatten(2).transpose(1, 2)).transpose(1, 2)
            z = z.unflatten(2, grid)
        h, w = z.shape[2:]
        features = to_grid(tower.project(z.flatten(2).transpose(1, 2)), (h, w))
        return DenseFeatures(features, tower.embedding(state.x, state.grid), padding)
