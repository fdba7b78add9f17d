"""ResCLIP: Residual Attention for Training-free Dense Vision-language Inference (Yang et al., CVPR 2025).

    A_c = mean of the ordinary softmax(s·q kᵀ) of middle blocks (6 to 9 of 12), per head
    M   = τ_s ((1 − λ_s) s·R + λ_s Sem)        Sem: semantic feedback of a first pass, made by ``FeedbackScore``
    A   = τ_r ((1 − λ_r) softmax(M + G) + λ_r A_c),     f = proj(ln_post(O(A v)))

R and G are those of a base method: k kᵀ and the Gaussian neighbourhood of NACLIP, q qᵀ of ClearCLIP, or SCLIP's two,
which keeps its residual and feed-forward.  The first pass has no feedback: M = s·R.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import DENSE
from ovseg.towers import Tower

from .base import DenseExtractor, to_grid
from .clearclip import ClearCLIP
from .features import DenseFeatures
from .naclip import NACLIP
from .sclip import SCLIP

BASES = {"naclip": NACLIP, "clearclip": ClearCLIP, "sclip": SCLIP}


@DENSE.register_module()
class ResCLIP(DenseExtractor):
    """Cross-layer residual attention over a base method, with semantic feedback.

    Args:
        base: ``naclip``, ``clearclip`` or ``sclip``.
        residual: (τ_r, λ_r), how the middle blocks' attention is mixed in.
        feedback: (τ_s, λ_s), how the first pass' classes are mixed in.
        layers: first and last middle block as shares of the depth; (5/12, 9/12) are blocks 6 to 9 of 12.
        **options: see ``DenseExtractor``.

    The paper tunes the four numbers per benchmark; the defaults are those of COCO-Stuff.

    Raises:
        ValueError: another base, shares outside [0, 1].
    """

    towers = ("vit",)
    scorer = dict(type="FeedbackScore")
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
                f"ResCLIP: base is one of {', '.join(BASES)} and layers are two rising shares of the depth; got "
                f"{base!r}, {layers}."
            )
        self.base = BASES[base](positions=self.positions, padding=self.padding)
        self.residual, self.feedback, self.layers = tuple(residual), tuple(feedback), tuple(layers)

    def middle(self, depth: int) -> range:
        """Numbers of the middle blocks of a tower, at least one, never the last."""
        first, last = (round(share * depth) for share in self.layers)
        first = min(first, depth - 1)
        return range(first, max(first + 1, min(last, depth - 1)))

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, scale: float, grid, across: Tensor, semantic: Tensor | None):
        """A v (B, heads, N, d) with A_c = ``across`` (B, heads, N, N) and Sem (B, N, N) or None."""
        (tau_r, lambda_r), (tau_s, lambda_s) = self.residual, self.feedback
        bias = self.base.bias(q, k, grid)
        pairs = {"qq": q, "kk": k, "vv": v}
        own = 0
        for relation in self.base.relations:
            logits = scale * pairs[relation] @ pairs[relation].transpose(-2, -1)
            if semantic is not None:
                logits = tau_s * ((1 - lambda_s) * logits + lambda_s * semantic[:, None].to(logits.dtype))
            own = own + (logits if bias is None else logits + bias).softmax(-1)
        return (tau_r * ((1 - lambda_r) * own + lambda_r * across)) @ v

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """First-pass features; ``reread(semantic)`` of the answer gives those with feedback."""
        state, padding = self.start(tower, images)
        middle = [index for index in self.middle(len(tower.blocks)) if index < len(tower.blocks) - 1]
        total = 0
        for index in middle:  # one block's attention at a time
            tap = f"block.{index}.attn"
            state = tower.advance(state, index + 1, (tap,))
            total = total + state.taps.pop(tap)
        state = tower.advance(state, -1)
        block, x, grid = tower.blocks[-1], state.x, state.grid
        q, k, v = block.qkv(block.ln_1(x))
        across = total / len(middle) if middle else (block.scale * q @ k.transpose(-2, -1)).softmax(-1)

        def read(semantic: Tensor | None) -> Tensor:
            z = block.out(self.mixed(q, k, v, block.scale, grid, across, semantic))
            z = x + z if self.base.residual else z
            z = z + block.ffn(z) if self.base.ffn else z
            return to_grid(tower.project(z[:, 1:]), grid)

        def reread(semantic: Tensor) -> Tensor:
            return read(F.pad(semantic, (1, 0, 1, 0)))

        return DenseFeatures(read(None), tower.embedding(x, grid), padding, reread=reread)


def straight_lines(grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Patches on the straight line between every two patches (h·w, h·w, steps), and their Chebyshev distances."""
    h, w = grid
    points = torch.stack(torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"), -1).reshape(-1, 2).to(device)
    steps = torch.linspace(0, 1, max(h, w, 2), device=device)
    a, b = points[:, None, None].float(), points[None, :, None].float()
    line = torch.floor(a + (b - a) * steps[:, None] + 0.5).long()
    distance = (points[:, None] - points[None]).abs().amax(-1)
    return line[..., 0] * w + line[..., 1], distance


def semantic_feedback(classes: Tensor, sigma: float = 5.0, kernel: int = 31) -> Tensor:
    """Sem (h·w, h·w) of the class of each patch (h, w).

    Pairs of one class are 1, times exp(−d/d_max) where no straight line of that class joins them (d: Chebyshev
    distance); each row is smoothed as a sequence by a Gaussian, brought to sum 1, and the whole divided by its maximum.
    """
    flat = classes.flatten()
    lines, distance = straight_lines(tuple(classes.shape), classes.device)
    same = flat[:, None] == flat[None]
    joined = (flat[lines] == flat[:, None, None]).all(-1)
    far = torch.exp(-distance / distance.max().clamp(min=1))
    pairs = torch.where(joined, 1.0, far) * same
    x = torch.arange(kernel, device=classes.device) - kernel // 2
    weights = torch.exp(-x.float().square() / (2 * sigma**2))
    rows = F.conv1d(pairs[:, None], (weights / weights.sum()).view(1, 1, -1), padding=kernel // 2)[:, 0]
    rows = rows / rows.sum(-1, keepdim=True).clamp(min=1e-12)
    return rows / rows.max()
