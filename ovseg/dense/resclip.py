"""ResCLIP: Residual Attention for Training-free Dense Vision-language Inference (Yang et al., CVPR 2025).

    A_c = mean of the ordinary softmax(s·q kᵀ) of middle blocks (6 to 9 of 12), per head
    M   = τ_s ((1 − λ_s) s·R + λ_s Sem)        Sem: semantic feedback of a first pass, see ``FeedbackScore``
    A   = τ_r ((1 − λ_r) softmax(M + G) + λ_r A_c),     f = proj(ln_post(O(A v)))

R and G are those of a base method: k kᵀ and the Gaussian neighborhood of NACLIP, q qᵀ of ClearCLIP, or both relations
of SCLIP, with its residual and feed-forward.  The first pass has no feedback: M = s·R.
"""

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attend

from ovseg.registry import DENSE
from ovseg.towers import Tower

from .base import DenseExtractor, patches, to_grid
from .clearclip import ClearCLIP
from .features import DenseFeatures
from .naclip import NACLIP
from .sclip import SCLIP

BASES = {"naclip": NACLIP, "clearclip": ClearCLIP, "sclip": SCLIP}


@DENSE.register_module()
class ResCLIP(DenseExtractor):
    """Cross-layer residual attention on top of a base method, with semantic feedback.

    Args:
        base: ``naclip``, ``clearclip`` or ``sclip``.
        residual: (τ_r, λ_r), the weights of the middle blocks' attention.
        feedback: (τ_s, λ_s), the weights of the first pass's classes.
        layers: first and last middle block as fractions of the depth; (5/12, 9/12) are blocks 6 to 9 of 12.
        **options: see ``DenseExtractor``.

    The paper tunes the four weights per benchmark; the defaults are those of COCO-Stuff.

    Raises:
        ValueError: an unknown base, or fractions outside [0, 1].
    """

    requires = ("attention_blocks",)
    scorer = dict(type="FeedbackScore")
    name = "resclip"
    paper = "ResCLIP, CVPR 2025"
    protocol = dict(short_side=336, window=224, stride=112, logit_scale=40)

    def __init__(
        self,
        base: str = "naclip",
        residual: tuple[float, float] = (2.0, 0.4),
        feedback: tuple[float, float] = (1.8, 0.7),
        layers: tuple[float, float] = (5 / 12, 9 / 12),
        **options,
    ):
        super().__init__(**options)
        if base not in BASES or not 0 <= layers[0] < layers[1] <= 1:
            raise ValueError(
                f"ResCLIP: base must be one of {', '.join(BASES)} and layers two rising fractions of the depth; got "
                f"{base!r}, {layers}."
            )
        self.base = BASES[base](positions=self.positions, padding=self.padding)
        self.residual, self.feedback, self.layers = tuple(residual), tuple(feedback), tuple(layers)

    def middle(self, depth: int) -> range:
        """Indices of the middle blocks of a tower: at least one, and never the last."""
        first, last = (round(share * depth) for share in self.layers)
        first = min(first, depth - 1)
        return range(first, max(first + 1, min(last, depth - 1)))

    def own(self, q: Tensor, k: Tensor, v: Tensor, scale: float, grid, semantic: Tensor | None) -> Tensor:
        """Σ_R softmax(M + G) v (B, heads, N, d) with Sem (B, N, N) or None."""
        pairs, bias = {"qq": q, "kk": k, "vv": v}, self.base.bias(q, k, grid)
        if semantic is not None:
            tau, share = self.feedback
            steer = tau * share * semantic[:, None].to(q.dtype)
            scale, bias = tau * (1 - share) * scale, steer if bias is None else steer + bias
        parts = (attend(pairs[r], pairs[r], v, attn_mask=bias, scale=scale) for r in self.base.relations)
        return reduce(torch.add, parts)

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """First-pass features; ``reread`` of the result computes those with feedback.

        A_c v is the mean of the middle blocks' attentions, each applied to the last block's values, so N×N weights per
        head are never stored; Sem itself is N×N, shared by all heads.
        """
        state, padding = self.start(tower, images)
        depth = len(tower.blocks)
        middle = [index for index in self.middle(depth) if index < depth - 1]
        state = tower.advance(state, -1, [f"block.{index}.{part}" for index in middle for part in "qk"])
        block, x, grid = tower.blocks[-1], state.x, state.grid
        q, k, v = block.qkv(block.ln_1(x))
        pairs = [(state.taps[f"block.{index}.q"], state.taps[f"block.{index}.k"]) for index in middle] or [(q, k)]
        across = reduce(torch.add, (attend(*pair, v, scale=block.scale) for pair in pairs)) / len(pairs)
        tau, share = self.residual

        def features_at(semantic: Tensor | None, rows: slice) -> Tensor:
            own = self.own(q[rows], k[rows], v[rows], block.scale, grid, semantic)
            z = block.out(tau * ((1 - share) * own + share * across[rows]))
            z = x[rows] + z if self.base.residual else z
            z = z + block.ffn(z) if self.base.ffn else z
            return to_grid(tower.project(patches(z, grid)), grid)

        def reread(semantic: Tensor, rows: slice) -> Tensor:
            before = x.shape[1] - semantic.shape[1]
            return features_at(F.pad(semantic, (before, 0, before, 0)), rows)

        return DenseFeatures(features_at(None, slice(None)), tower.embedding(x, grid), padding, reread=reread)


def joined(classes: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the straight line between two patches stays in the class of the first, and their distance.

    Args:
        classes: (h, w) class of each patch.

    Returns:
        (h·w, h·w) bool, and (h·w, h·w) Chebyshev distances in patches.
    """
    (h, w), flat = classes.shape, classes.flatten()
    points = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1).reshape(-1, 2)
    points = points.to(classes.device)
    a, b = points[:, None].float(), points[None].float()
    alike = torch.ones(h * w, h * w, dtype=torch.bool, device=classes.device)
    for t in torch.linspace(0, 1, max(h, w, 2)).tolist():
        passed = torch.floor(a + (b - a) * t + 0.5).long()
        alike &= flat[passed[..., 0] * w + passed[..., 1]] == flat[:, None]
    return alike, (points[:, None] - points[None]).abs().amax(-1)


def semantic_feedback(classes: Tensor, sigma: float = 5.0, kernel: int = 31) -> Tensor:
    """Sem (h·w, h·w) of the class of each patch (h, w).

    Pairs of the same class are 1, times exp(−d/d_max) if the straight line between them leaves the class (d: Chebyshev
    distance); each row is smoothed as a sequence by a Gaussian and normalized to sum 1, and the matrix is divided by
    its maximum.
    """
    flat = classes.flatten()
    alike, distance = joined(classes)
    far = torch.exp(-distance / distance.max().clamp(min=1))
    pairs = torch.where(alike, 1.0, far) * (flat[:, None] == flat[None])
    x = torch.arange(kernel, device=classes.device) - kernel // 2
    weights = torch.exp(-x.float().square() / (2 * sigma**2))
    rows = F.conv1d(pairs[:, None], (weights / weights.sum()).view(1, 1, -1), padding=kernel // 2)[:, 0]
    rows = rows / rows.sum(-1, keepdim=True).clamp(min=1e-12)
    return rows / rows.max()
