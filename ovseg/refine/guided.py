"""Guided upsampling: maps are aligned with the edges of the image (guided filter: He, Sun and Tang, ECCV 2010).

    in every window ω:   m ≈ aᵀ I + b,   a = (Σ_ω + ε 1)⁻¹ cov_ω(I, m),   b = mean_ω(m) − aᵀ mean_ω(I)
    m(p) ← mean(a)ᵀ I(p) + mean(b)       over the windows that cover p

I is the normalized image with three channels; the means are box filters over pixels inside the image only.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import REFINERS

from .base import MapRefiner


@REFINERS.register_module()
class GuidedUpsampling(MapRefiner):
    """Local linear models of each map in the colors of the image.

    Args:
        radius: half the side of the windows, in pixels.
        eps: ε, in units of the normalized colors squared; larger is smoother.

    Raises:
        ValueError: ``radius`` below 1 or ``eps`` not positive.
    """

    name = "guided_upsampling"

    def __init__(self, radius: int = 8, eps: float = 0.01):
        super().__init__()
        if radius < 1 or eps <= 0:
            raise ValueError(f"GuidedUpsampling: radius >= 1 and eps > 0, got {radius} and {eps}.")
        self.radius, self.eps = radius, eps

    def mean(self, maps: Tensor) -> Tensor:
        """Box means (B, C, H, W); windows are cropped at the border."""
        rows, columns = (min(self.radius, side - 1) for side in maps.shape[-2:])
        return F.avg_pool2d(maps, (2 * rows + 1, 2 * columns + 1), 1, (rows, columns), count_include_pad=False)

    def affinity(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image (B, 3, H, W), its means, and the inverse covariances (B, 3, 3, H, W)."""
        mean = self.mean(image)
        products = torch.einsum("bihw,bjhw->bijhw", image, image).flatten(1, 2)
        covariance = self.mean(products).unflatten(1, (3, 3)) - torch.einsum("bihw,bjhw->bijhw", mean, mean)
        matrices = covariance.permute(0, 3, 4, 1, 2) + self.eps * torch.eye(3, device=image.device, dtype=image.dtype)
        return image, mean, torch.linalg.inv(matrices).permute(0, 3, 4, 1, 2)

    def apply_to(self, maps: Tensor, affinity: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        image, mean, inverse = affinity
        out = []
        for index in range(maps.shape[1]):  # one map at a time: three maps of coefficients each
            m = maps[:, index : index + 1]
            average = self.mean(m)
            covariance = self.mean(image * m) - mean * average
            a = torch.einsum("bijhw,bjhw->bihw", inverse, covariance)
            b = average - (a * mean).sum(1, keepdim=True)
            out.append((self.mean(a) * image).sum(1, keepdim=True) + self.mean(b))
        return torch.cat(out, 1)
