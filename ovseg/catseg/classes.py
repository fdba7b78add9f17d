"""Class aggregation of a cost volume (CAT-Seg, section 3.2): attention over classes at every position.

    y = pool(x),   y ← y + A(q, k, v),   q, k = W [LN₁(y) ; g],   v = W_v LN₁(y),   y ← y + FFN(LN₂(y))
    x ← x + resize(y)                                                   pool(x) is inside y, so it is added once more

    linear   A = φ(q) Σ_t φ(k_t)ᵀ v_t / (φ(q) Σ_t φ(k_t)ᵀ + 10⁻⁶),   φ = elu + 1
    full     A = softmax(q kᵀ / √d) v

g is the projected text.  Fewer classes than ``pad_len`` are padded with a learned token; its copies are identical, so
they enter both sums as a single token weighted by their number.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear_attention(q: Tensor, k: Tensor, v: Tensor, weights: Tensor | None, heads: int) -> Tensor:
    """A with φ = elu + 1, linear in the number of classes.

    Args:
        q: (M, T, C).
        k, v: (M, S, C).
        weights: (S,) multiplicity of each of the S tokens; None: one each.
        heads: number of attention heads.
    """
    q, k = (F.elu(t).add_(1) for t in (q, k))
    if weights is not None:
        k = k * weights[:, None]
    total = k.sum(1)[..., None]
    parts = zip(*(t.chunk(heads, -1) for t in (q, k, v)), total.chunk(heads, 1), strict=True)
    return torch.cat([(a @ (b.transpose(1, 2) @ c)) / (a @ n + 1e-6) for a, b, c, n in parts], -1)


def full_attention(q: Tensor, k: Tensor, v: Tensor, weights: Tensor | None, heads: int) -> Tensor:
    """Softmax attention; see ``linear_attention`` for the arguments."""
    bias = None if weights is None else weights.log()[None]
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)


ATTENTIONS = {"linear": linear_attention, "full": full_attention}


class GuidedAttention(nn.Module):
    """One of ``ATTENTIONS`` over the classes at each position, without output projection.

    Args:
        width: C, channels of the volume.
        guidance: channels of the projected text.
        heads: number of heads, a divisor of C.
        attention: ``linear`` or ``full``.
    """

    def __init__(self, width: int, guidance: int, heads: int, attention: str):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width + guidance, width)
        self.k = nn.Linear(width + guidance, width)
        self.v = nn.Linear(width, width)
        self.attend = ATTENTIONS[attention]

    def forward(self, y: Tensor, guidance: Tensor, pad: tuple[Tensor, Tensor, int] | None) -> Tensor:
        """(B, N, T, C) from LN₁(y) of that shape and g (B, T, G).

        ``pad`` is LN₁ of the padding token (1, C), its guidance (1, G) and its multiplicity.
        """
        width = y.shape[-1]
        q, k = (
            F.linear(y, layer.weight[:, :width]) + F.linear(guidance, layer.weight[:, width:], layer.bias)[:, None]
            for layer in (self.q, self.k)
        )
        v, weights = self.v(y), None
        if pad is not None:
            token, text, count = pad
            shape = (*y.shape[:2], -1, -1)
            k = torch.cat([k, self.k(torch.cat([token, text], -1)).expand(shape)], 2)
            v = torch.cat([v, self.v(token).expand(shape)], 2)
            weights = v.new_ones(v.shape[2])
            weights[-1] = count
        q, k, v = (t.flatten(0, 1) for t in (q, k, v))
        return self.attend(q, k, v, weights, self.heads).unflatten(0, y.shape[:2])


class ClassAggregation(nn.Module):
    """Attention over classes and feed-forward, on the pooled grid.

    Args:
        width, guidance, heads, attention: see ``GuidedAttention``.
        pad_len: classes are padded to this number; 0 for no padding.

    Raises:
        ValueError: unknown attention.
    """

    def __init__(self, width: int, guidance: int, heads: int, attention: str, pad_len: int):
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention over classes must be {' or '.join(ATTENTIONS)}, got {attention!r}.")
        self.pad_len = pad_len
        if pad_len:
            self.padding_tokens = nn.Parameter(torch.zeros(1, 1, width))
            self.padding_guidance = nn.Parameter(torch.zeros(1, 1, guidance))
        self.attention = GuidedAttention(width, guidance, heads, attention)
        self.MLP = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(inplace=True), nn.Linear(4 * width, width))
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, y: Tensor, guidance: Tensor) -> Tensor:
        """(B, T, N, C) from (B, T, N, C), for any number N of positions, and g (B, T, G)."""
        missing, pad = max(0, self.pad_len - y.shape[1]), None
        if missing:
            pad = self.norm1(self.padding_tokens[0]), self.padding_guidance[0], missing
        y = y.transpose(1, 2).contiguous()
        y = y + self.attention(self.norm1(y), guidance, pad)
        return (y + self.MLP(self.norm2(y))).transpose(1, 2)


def pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Means of (B, T, h, w, C) over cells of ``size`` positions; incomplete cells at the border are dropped."""
    if math.prod(size) == 1:
        return x
    return F.avg_pool2d(_maps(x), size).permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def enlarged(y: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, T, h', w', C) resized to the grid (h, w), bilinear with aligned corners."""
    if y.shape[2:4] == grid:
        return y
    large = F.interpolate(_maps(y), grid, mode="bilinear", align_corners=True)
    return large.permute(0, 2, 3, 1).unflatten(0, y.shape[:2])


def _maps(x: Tensor) -> Tensor:
    """(B, T, h, w, C) → (B·T, C, h, w)."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)
