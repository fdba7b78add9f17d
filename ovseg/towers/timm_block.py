"""Blocks of timm's transformers with their parts laid open, in the interface of ``block.TappedBlock``.

pre-norm    y = x + s₁ W_o LN'(softmax(s·q kᵀ) v),  z = y + s₂ FFN(LN₂(y)),   q, k, v of LN₁(x)
post-norm   y = x + LN₁(W_o …),                     z = y + LN₂(FFN(y)),      q, k, v of x            (EVA02-E)

LN' and the layer scales s₁, s₂ are there in some networks, a normalization of queries and keys too.  Rotations (RoPE)
turn the queries and keys of the patches alone.
"""

import copy

import torch
import torch.nn.functional as F
from timm.layers import Attention, AttentionPoolLatent, AttentionRope, RotaryEmbeddingCat, apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ovseg.threads import PerThread

ATTENTIONS = (Attention, AttentionRope, EvaAttention)
BLOCKS = (Block, EvaBlock, EvaBlockPostNorm)


def can_open(block: nn.Module) -> bool:
    """Whether ``TimmBlock`` computes what a block computes."""
    attention = getattr(block, "attn", None)
    plain = type(block) in BLOCKS and type(attention) in ATTENTIONS and attention.gate is None
    return plain and getattr(attention, "num_kv_groups", 1) == 1


class TimmRotation:
    """RoPE of a tower's patches, as timm's own module computes it for a grid.

    The tower tells the grid whenever tokens start, go on or are read out (see ``eva.Rotation``).

    Args:
        rope: timm's module.
        prefix: tokens before the patches, which are not turned.
        half: whether a head's halves are turned against each other instead of neighbours.
    """

    def __init__(self, rope: RotaryEmbeddingCat, prefix: int, half: bool):
        self.rope, self.prefix, self.half = rope, prefix, half
        self.known: dict[tuple[int, int], Tensor] = {}
        self._own = PerThread()  # .angles: (h·w, 2 d) by the number of patches

    @property
    def angles(self) -> dict[int, Tensor]:
        return vars(self._own).setdefault("angles", {})

    def use(self, grid: tuple[int, int], like: Tensor):
        """Turn by the angles of a grid (h, w) from now on where tokens are as many."""
        if grid not in self.known:
            with torch.inference_mode(False):  # what is kept shall serve in training too
                rope = copy.deepcopy(self.rope)
                rope.update_feat_shape(list(grid))
                self.known[grid] = rope.get_embed().clone()
        self.angles[grid[0] * grid[1]] = self.known[grid].to(like.device)

    def __call__(self, x: Tensor, added: int = 0) -> Tensor:
        """Turn the patches' rows of x (B, heads, prefix + h·w + added, d).

        Raises:
            ValueError: tokens of no grid that the tower has seen.
        """
        last = x.shape[2] - added
        angles = self.angles.get(last - self.prefix)
        if angles is None:
            raise ValueError(
                f"a block of this tower was given {last} tokens, which are not those of a picture it has seen; tokens "
                "come from tower.start, whole."
            )
        turned = apply_rot_embed_cat(x[:, :, self.prefix : last].float(), angles, half=self.half).to(x.dtype)
        return torch.cat([x[:, :, : self.prefix], turned, x[:, :, last:]], 2)


class TimmBlock:
    """A block of timm seen through its parts; it borrows the modules and owns nothing."""

    has_residual = has_attention = True

    def __init__(self, block: nn.Module, rotation: TimmRotation | None = None):
        self.block, self.attention, self.rotation = block, block.attn, rotation
        self.post_norm = isinstance(block, EvaBlockPostNorm)
        self.heads, self.scale = block.attn.num_heads, block.attn.scale
        self.before, self.behind = (
            getattr(block, f"ls{n}", None) or getattr(block, f"gamma_{n}", None) for n in (1, 2)
        )

    def ln_1(self, x: Tensor) -> Tensor:
        return x if self.post_norm else self.block.norm1(x)

    def ln_2(self, x: Tensor) -> Tensor:
        return x if self.post_norm else self.block.norm2(x)

    def qkv(self, normed: Tensor, added: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (turned) and values: three (B, heads, N, d) from (B, N, D); see ``eva``."""
        attention = self.attention
        if attention.qkv is None:
            parts = [layer(normed) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
        elif getattr(attention, "q_bias", None) is not None:
            bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
            parts = F.linear(normed, attention.qkv.weight, bias).chunk(3, -1)
        else:
            parts = attention.qkv(normed).chunk(3, -1)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        q, k = attention.q_norm(q), attention.k_norm(k)
        if self.rotation is not None:
            q, k = self.rotation(q, added), self.rotation(k, added)
        return q, k, v

    def values(self, normed: Tensor) -> Tensor:
        """The values of ``qkv`` alone, (B, heads, N, d)."""
        return self.qkv(normed)[2]

    def out(self, values: Tensor) -> Tensor:
        """Concatenate heads, normalize where the network does, and project: (B, heads, N, d) → (B, N, D)."""
        y = self.attention.proj(self.attention.norm(values.transpose(1, 2).flatten(2)))
        return _scaled(self.before, self.block.norm1(y) if self.post_norm else y)

    def ffn(self, x: Tensor) -> Tensor:
        """The feed-forward with its normalization, (B, N, D)."""
        block = self.block
        return _scaled(self.behind, block.norm2(block.mlp(x)) if self.post_norm else block.mlp(block.norm2(x)))

    def __call__(self, x: Tensor, queries: slice = slice(None)) -> Tensor:
        """The whole block for the token rows ``queries``; keys and values come from all rows of x (B, N, D)."""
        return self._run(x, queries, 0)

    def with_tokens(self, x: Tensor, tokens: Tensor) -> Tensor:
        """The block for x (B, N, D), which also attends to ``tokens`` (B, M, D) that have no place in the picture."""
        return self._run(torch.cat([x, tokens], 1), slice(0, x.shape[1]), tokens.shape[1])

    def _run(self, x: Tensor, queries: slice, added: int) -> Tensor:
        q, k, v = self.qkv(self.ln_1(x), added)
        y = x[:, queries] + self.out(F.scaled_dot_product_attention(q[:, :, queries], k, v, scale=self.scale))
        return y + self.ffn(y)


def _scaled(scale: nn.Module | Tensor | None, y: Tensor) -> Tensor:
    if scale is None:
        return y
    return scale(y) if isinstance(scale, nn.Module) else scale * y


def pool_each(pool: AttentionPoolLatent, x: Tensor) -> Tensor:
    """A latent attention pool with every token as the only one it sees: (B, N, D) → (B, N, D).

    o = W_o W_v x,  o + MLP(LN(o)): what the pool gives for a picture of that token alone.
    """
    weight, bias = pool.kv.weight, pool.kv.bias
    half = slice(len(weight) // 2, None)
    y = pool.proj(F.linear(x, weight[half], None if bias is None else bias[half]))
    return y if pool.mlp is None else y + pool.mlp(pool.norm(y))
