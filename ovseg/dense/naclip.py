"""Pay Attention to Your Neighbours (Hajimiri, Ben Ayed and Dolz, WACV 2025): NACLIP.

    A = softmax(s·k kᵀ + G),   f = proj(ln_post( O(A v) ))      no residual, no feed-forward
    G[(i,j),(m,n)] = exp(−((i−m)² + (j−n)²) / 2σ²) on patch coordinates, 0 for the class token

G is added to the scaled logits of every head.  The paper's ablations are available: ``gaussian="none"`` (k kᵀ alone),
``"only"`` (G alone, times s·mean ‖q_p‖‖k_p'‖), with residual and feed-forward, and other relations.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import DENSE

from .family import LastBlock, patch_distance


@DENSE.register_module()
class NACLIP(LastBlock):
    """Key-key attention with a Gaussian neighborhood.

    Args:
        gaussian: ``added`` to the relations, ``none``, or ``only``.
        sigma: standard deviation of the neighborhood, in patches.
        **options: see ``LastBlock``.

    Raises:
        ValueError: an unknown ``gaussian``, or a ``sigma`` that is not positive.
    """

    relations = ("kk",)
    residual = False
    ffn = False
    name = "naclip"
    paper = "NACLIP, WACV 2025"
    protocol = dict(short_side=336, window=224, stride=112, logit_scale=40, refine=("PAMR",))

    def __init__(self, gaussian: str = "added", sigma: float = 5.0, **options):
        super().__init__(**options)
        if gaussian not in ("added", "none", "only") or sigma <= 0:
            raise ValueError(f"NACLIP: gaussian is added, none or only and sigma > 0; got {gaussian!r}, {sigma}.")
        self.gaussian, self.sigma = gaussian, sigma

    def neighborhood(self, grid: tuple[int, int], device: torch.device, before: int = 1) -> Tensor:
        """G (P + h·w, P + h·w), with zero rows and columns for the P tokens before the patches."""
        return F.pad(torch.exp(-patch_distance(grid, device) / (2 * self.sigma**2)), (before, 0, before, 0))

    def bias(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor | None:
        if self.gaussian == "none":
            return None
        return self.neighborhood(grid, q.device, q.shape[2] - grid[0] * grid[1]).to(q.dtype)

    def attend(self, q, k, v, scale, grid) -> Tensor:
        if self.gaussian != "only":
            return super().attend(q, k, v, scale, grid)
        # mean over heads and token pairs of |q_p||k_p'| factorizes into the product of the two token means, per head
        strength = scale * (q.norm(dim=-1).mean(-1) * k.norm(dim=-1).mean(-1)).mean(1)
        weights = (strength[:, None, None, None] * self.bias(q, k, grid)).softmax(-1)
        return weights @ v
