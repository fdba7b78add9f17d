"""Spatial aggregation of a cost volume (CAT-Seg, section 3.2): window attention for every class separately.

    x ← x + W_o softmax(s·q kᵀ) v,   q, k = W [LN₁(x) ; LN_g(a)],   v = W_v LN₁(x)        within each window
    x ← x + FFN(LN₂(x))                                                                    twice, then shifted by half

a are the projected dense features of the image.  They are the same for all classes, so their part of q and k is
computed once per image.  A shifted window that wraps around the border splits into parts that do not attend to each
other; here those parts are separate windows, which is equivalent to rolling and masking with −100.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bands(length: int, window: int, shift: int) -> list[tuple[int, int, int]]:
    """(start, stop, window size) of the runs of equally large windows along a side of ``length`` positions.

    Windows begin at ``shift``, ``shift + window``, …; the remainders before and after are separate windows, so that any
    length works.
    """
    edges = [0, shift, shift + (length - shift) // window * window, length]
    sizes = (shift, window, length - edges[2])
    return [(a, b, size) for a, b, size in zip(edges, edges[1:], sizes, strict=False) if b > a]


class WindowAttention(nn.Module):
    """Attention inside windows, with the guidance concatenated to queries and keys.

    Args:
        width: C, channels of the volume.
        guidance: channels of the guidance.
        heads: number of heads, a divisor of C.
    """

    def __init__(self, width: int, guidance: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width + guidance, width)
        self.k = nn.Linear(width + guidance, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, guidance: Tensor, window: int, shift: int) -> Tensor:
        """(B, T, h, w, C) from LN₁(x) of that shape and the normalized guidance (B, h, w, G)."""
        width = x.shape[-1]
        weight, bias = torch.cat([self.q.weight, self.k.weight]), torch.cat([self.q.bias, self.k.bias])
        of_picture = F.linear(guidance, weight[:, width:], bias)[:, None]
        weight = torch.cat([weight[:, :width], self.v.weight])
        out = torch.empty_like(x)
        rows, columns = (bands(side, window, shift) for side in x.shape[2:4])
        for top, bottom, height in rows:
            for left, right, breadth in columns:
                part = (slice(None), slice(None), slice(top, bottom), slice(left, right))
                tokens = in_windows(x[part], height, breadth)
                qk, v = F.linear(tokens, weight).split((2 * width, width), -1)
                q, k = (qk + in_windows(of_picture[part], height, breadth)).chunk(2, -1)
                v = v + self.v.bias
                heads = (t.flatten(0, 3).unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
                mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
                out[part] = out_of_windows(self.proj(mixed).view_as(tokens), height, breadth)
        return out


def in_windows(x: Tensor, height: int, width: int) -> Tensor:
    """(B, T, a·height, b·width, C) → (B, T, a, b, height·width, C)."""
    return x.unflatten(3, (-1, width)).unflatten(2, (-1, height)).transpose(3, 4).flatten(4, 5)


def out_of_windows(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of ``in_windows``."""
    return tokens.unflatten(4, (height, width)).transpose(3, 4).flatten(4, 5).flatten(2, 3)


class Mlp(nn.Module):
    """fc₂(GELU(fc₁ x)) with a hidden layer four times as wide."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """One pre-norm block of window attention and feed-forward."""

    def __init__(self, width: int, guidance: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, guidance, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, guidance: Tensor, window: int, shift: int) -> Tensor:
        x = x + self.attn(self.norm1(x), guidance, window, shift)
        return x + self.mlp(self.norm2(x))


class SpatialAggregation(nn.Module):
    """Two blocks, the second with windows shifted by half a window.

    If a side of the grid is not a multiple of the window, the last window is smaller.  If the grid is no larger than
    the window in one direction, windows of that size are used without shift, as in the reference.

    Args:
        width, guidance, heads: see ``WindowAttention``.
        window: side of a window in positions.
    """

    def __init__(self, width: int, guidance: int, heads: int, window: int):
        super().__init__()
        self.window = window
        self.block_1 = SwinBlock(width, guidance, heads)
        self.block_2 = SwinBlock(width, guidance, heads)
        self.guidance_norm = nn.LayerNorm(guidance)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """(B, T, h, w, C) from (B, T, h, w, C) and the projected guidance (B, h, w, G)."""
        least = min(x.shape[2:4])
        window, shift = (least, 0) if least <= self.window else (self.window, self.window // 2)
        guidance = self.guidance_norm(guidance)
        return self.block_2(self.block_1(x, guidance, window, 0), guidance, window, shift)
