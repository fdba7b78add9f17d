"""CLIP's ModifiedResNet with its attention pool opened: the pool is the one block of this tower.

The pool attends from the mean of the last stage to all its positions: o = W_c·softmax(s·q kᵀ) v over the tokens
[mean, positions] + position table.  It has no residual and no feed-forward.  As MaskCLIP does, dense features leave the
position table out; only the image embedding uses it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import TokenState, Tower
from .positions import resize_positions


class PoolBlock:
    """``AttentionPool2d`` with the interface of ``TappedBlock``."""

    has_residual = False

    def __init__(self, pool):
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


class ResNetTower(Tower):
    """open_clip ``ModifiedResNet``; tokens are the mean of the last stage and its h·w positions."""

    stride = 32

    def __init__(self, visual, clip, preprocess, card):
        super().__init__(visual, clip, preprocess, card)
        visual.to(memory_format=torch.channels_last)  # how convolutions run faster
        self.blocks = [PoolBlock(visual.attnpool)]
        self.image_size = visual.image_size
        self.width = visual.attnpool.q_proj.in_features
        self.embed_dim = visual.attnpool.c_proj.out_features

    def stages(self, images: Tensor) -> list[Tensor]:
        """The four stages, (B, D/8, H/4, W/4) to (B, D, h, w)."""
        self._check(images)
        x, stages = self.visual.stem(images.to(self.dtype)), []
        for stage in (self.visual.layer1, self.visual.layer2, self.visual.layer3, self.visual.layer4):
            stages.append(x := stage(x))
        return stages

    def trunk(self, images: Tensor) -> Tensor:
        """The last stage, (B, D, h, w)."""
        return self.stages(images)[-1]

    def start(self, images: Tensor, positions: str = "scale") -> TokenState:
        stage = self.trunk(images)
        x = stage.flatten(2).transpose(1, 2)
        return TokenState(torch.cat([x.mean(1, keepdim=True), x], 1), tuple(stage.shape[-2:]), 0)

    def project(self, z: Tensor) -> Tensor:
        return z

    def embedding(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        table = resize_positions(self.visual.attnpool.positional_embedding, grid)
        return self.blocks[-1](x + table.to(x.dtype), slice(0, 1))[:, 0]
