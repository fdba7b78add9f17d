"""One attention block with its parts laid open: q, k, v, the output projection, the feed-forward."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TappedBlock:
    """A pre-norm block y = x + O(softmax(s·q kᵀ) v), z = y + FFN(LN₂(y)), seen through its parts.

    It borrows the modules of an open_clip ``ResidualAttentionBlock`` and owns nothing, so devices, dtypes and weights
    stay those of the tower.  ``scale`` s = d^-1/2 for heads of width d.
    """

    has_residual = has_attention = True

    def __init__(self, block: nn.Module):
        attention = block.attn
        if not isinstance(attention, nn.MultiheadAttention):
            raise ValueError(
                f"this tower's blocks use {type(attention).__name__}, whose q, k and v cannot be opened; dense "
                "features need plain open_clip ViT blocks or a ModifiedResNet. Choose another tower, e.g. ViT-B-16."
            )
        self.block, self.attention = block, attention
        self.heads = attention.num_heads
        self.scale = attention.head_dim**-0.5

    def ln_1(self, x: Tensor) -> Tensor:
        return self.block.ln_1(x)

    def ln_2(self, x: Tensor) -> Tensor:
        return self.block.ln_2(x)

    def qkv(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of LN₁(x): three (B, heads, N, d) from (B, N, D)."""
        projected = F.linear(normed, self.attention.in_proj_weight, self.attention.in_proj_bias)
        batch, tokens, _ = projected.shape
        return projected.reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def values(self, normed: Tensor) -> Tensor:
        """The values of ``qkv`` alone, (B, heads, N, d)."""
        weight, bias = self.attention.in_proj_weight, self.attention.in_proj_bias
        third = slice(2 * len(weight) // 3, None)
        v = F.linear(normed, weight[third], None if bias is None else bias[third])
        return v.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def out(self, values: Tensor) -> Tensor:
        """O(·): concatenate heads and project, (B, heads, N, d) → (B, N, D)."""
        return self.block.ls_1(self.attention.out_proj(values.transpose(1, 2).flatten(2)))

    def ffn(self, x: Tensor) -> Tensor:
        """FFN(LN₂(x)), (B, N, D)."""
        return self.block.ls_2(self.block.mlp(self.block.ln_2(x)))

    def __call__(self, x: Tensor, queries: slice = slice(None)) -> Tensor:
        """The whole block for the token rows ``queries``; keys and values come from all rows of x (B, N, D)."""
        q, k, v = self.qkv(self.ln_1(x))
        y = x[:, queries] + self.out(F.scaled_dot_product_attention(q[:, :, queries], k, v))
        return y + self.ffn(y)

    def with_tokens(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The block for x (B, N, D), which also attends to ``tokens`` (B, M, D) that have no place in the picture."""
        return self(torch.cat([x, tokens], 1), slice(0, x.shape[1]))
