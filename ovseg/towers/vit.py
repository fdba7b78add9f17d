"""open_clip's plain Vision Transformer (OpenAI, LAION, MetaCLIP, DFN, DataComp, …)."""

import torch
from torch import Tensor

from .base import TokenState, Tower
from .block import TappedBlock
from .positions import resize_positions


class ViTTower(Tower):
    """open_clip ``VisionTransformer``: class token first, then h·w patches, row by row."""

    def __init__(self, visual, clip, preprocess, card):
        super().__init__(visual, clip, preprocess, card)
        self.blocks = [TappedBlock(block) for block in visual.transformer.resblocks]
        self.stride = visual.conv1.kernel_size[0]
        size = visual.image_size
        self.image_size = size[0] if isinstance(size, (tuple, list)) else size
        self.width = visual.conv1.out_channels
        self.embed_dim = self.width if visual.proj is None else visual.proj.shape[1]
        self._class_token_pooled = visual.attn_pool is None and visual.pool_type == "tok"

    def start(self, images: Tensor, positions: str = "scale") -> TokenState:
        x, grid = self.embed(images, positions)
        return TokenState(self.visual.ln_pre(x), grid, 0)

    def embed(self, images: Tensor, positions: str = "scale") -> tuple[Tensor, tuple[int, int]]:
        """Class token and patches plus positions, before the first normalisation: (B, 1 + h·w, D) and (h, w)."""
        self._check(images)
        patches = self.visual.conv1(images.to(self.dtype))
        grid = tuple(patches.shape[-2:])
        x = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], 1)
        return x + resize_positions(self.visual.positional_embedding, grid, positions).to(x.dtype), grid

    def project(self, z: Tensor) -> Tensor:
        z = self.visual.ln_post(z)
        return z if self.visual.proj is None else z @ self.visual.proj

    def embedding(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self._class_token_pooled:  # only the class token is read, so only its row of the last block is computed
            return self.project(self.blocks[-1](x, slice(0, 1)))[:, 0]
        pooled, _ = self.visual._pool(self.blocks[-1](x))
        return pooled if self.visual.proj is None else pooled @ self.visual.proj
