"""Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020), as SCLIP and NACLIP use it.

    a_n(p) = mean_c( −|x_c(p) − x_c(p+n)| / (10⁻⁸ + 0.1·σ_c(p)) ),   w = softmax_n(a),   m(p) ← Σ_n w_n(p)·m(p+n)

n runs over the 8 neighbors at each dilation (edges replicated, the pixel itself excluded); σ is the unbiased standard
deviation over the 3×3 neighborhoods of all dilations together, center included.
"""

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import REFINERS

from .base import MapRefiner


@REFINERS.register_module()
class PAMR(MapRefiner):
    """Averages maps over neighbors of similar color.

    Every map is refined independently, so classes can be processed in chunks: call ``affinity(image)`` once, then
    ``apply_to`` for each chunk.

    Args:
        steps: iterations.
        dilations: distances of the neighbors, in pixels.

    Raises:
        ValueError: no dilations, one below 1, or a negative number of steps.
    """

    name = "pamr"

    def __init__(self, steps: int = 10, dilations: Sequence[int] = (8, 16)):
        super().__init__()
        if not dilations or min(dilations) < 1 or steps < 0:
            raise ValueError(
                f"PAMR needs steps >= 0 and dilations >= 1, got steps={steps}, dilations={tuple(dilations)}."
            )
        self.steps, self.dilations = steps, tuple(dilations)

    def _neighbors(self, maps: Tensor, center: bool = False) -> Iterator[Tensor]:
        """The values (B, C, H, W) at p + n: 8 neighbors per dilation, with ``center`` 9."""
        height, width = maps.shape[-2:]
        for d in self.dilations:
            padded = F.pad(maps, (d, d, d, d), mode="replicate")
            for dy in (0, d, 2 * d):
                for dx in (0, d, 2 * d):
                    if center or (dy, dx) != (d, d):
                        yield padded[..., dy : dy + height, dx : dx + width]

    def _deviation(self, image: Tensor) -> Tensor:
        """Unbiased standard deviation of the neighborhoods, (B, 3, H, W), computed one neighbor at a time."""
        count = 9 * len(self.dilations)
        mean = reduce(torch.add, self._neighbors(image, center=True)) / count
        squares = reduce(torch.add, ((value - mean).square() for value in self._neighbors(image, center=True)))
        return (squares / (count - 1)).sqrt()

    def affinity(self, image: Tensor) -> Tensor:
        """Weights (8·dilations, B, 1, H, W) of a normalized image (B, 3, H, W)."""
        spread = 1e-8 + 0.1 * self._deviation(image)
        distances = [((value - image).abs() / spread).mean(1, keepdim=True) for value in self._neighbors(image)]
        return torch.stack(distances).neg().softmax(0)

    def apply_to(self, maps: Tensor, affinity: Tensor) -> Tensor:
        """Refined maps (B, C, H, W) from maps of the same shape, at the size of the image."""
        for _ in range(self.steps):
            total = torch.zeros_like(maps)
            for weight, value in zip(affinity, self._neighbors(maps), strict=True):
                total.addcmul_(weight.expand_as(maps), value)
            maps = total
        return maps

    def forward(self, image: Tensor, maps: Tensor) -> Tensor:
        """Refined maps (B, C, H, W); maps of another size are first resized (bilinear, align_corners True)."""
        maps = F.interpolate(maps, image.shape[-2:], mode="bilinear", align_corners=True)
        return self.apply_to(maps, self.affinity(image))
