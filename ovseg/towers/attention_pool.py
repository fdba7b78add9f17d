"""CLIP's attention pool with its parts laid open, in the interface of ``block.TappedBlock``.

o = W_c·softmax(s·q kᵀ) v over the tokens [mean, positions] + position table.  It has no residual and no feed-forward.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .positions import resize_positions


class PoolBlock:
    """``AttentionPool2d`` with the interface of ``TappedBlock``."""

    has_residual, has_attention = False, True

    def __init__(self, pool: nn.Module):
        self.pool, self.heads = pool, pool.num_heads
        self.scale = (pool.q_proj.out_features // pool.num_heads) ** -0.5

    def ln_1(self, x: Tensor) -> Tensor:
        return x

    ln_2 = ln_1

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, three (B, heads, N, d) from (B, N, D)."""
        parts = (layer(x) for layer in (self.pool.q_proj, self.pool.k_proj, self.pool.v_proj))
        return tuple(part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)

    def values(self, x: Tensor) -> Tensor:
        """The values of ``qkv`` alone, (B, heads, N, d)."""
        return self.pool.v_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def out(self, values: Tensor) -> Tensor:
        """Concatenate heads and project into the joint space, (B, heads, N, d) → (B, N, E)."""
        return self.pool.c_proj(values.transpose(1, 2).flatten(2))

    def __call__(self, x: Tensor, queries: slice = slice(None)) -> Tensor:
        q, k, v = self.qkv(x)
        return self.out(F.scaled_dot_product_attention(q[:, :, queries], k, v))


def pool_everywhere(pool: nn.Module, stage: Tensor, positions: str = "bilinear") -> tuple[Tensor, Tensor]:
    """The pool with its mean and all positions as queries: (B, D, h, w) → (B, E) and (B, E, h, w)."""
    grid = tuple(stage.shape[-2:])
    x = stage.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(1, keepdim=True), x], 1)
    x = PoolBlock(pool)(x + resize_positions(pool.positional_embedding, grid, positions).to(x.dtype))
    return x[:, 0], x[:, 1:].transpose(1, 2).unflatten(2, grid)
