"""Adapting CLIP For Phrase Localization Without Further Training (Li, Shakhnarovich and Yeh, 2022, arXiv 2204.03647).

One extra class token g_r per region r; from block ``start_block`` on, where it starts as a copy of the class token,

    g_r ← g_r + O( softmax( s·q(g_r) [k(patches), k(g_r)]ᵀ + [β_r, 0] ) [v(patches); v(g_r)] ),   g_r ← g_r + FFN(g_r)

with q, k, v of LN₁, β_r = 0 on the patches of region r and −100 on the others.  The patches and the class token itself
evolve as in plain CLIP, and the class token is no key of a region.  Embedding of region r: proj(ln_post(g_r)).

The stem's stride is patch / ``upsample`` for a finer grid, its padding (patch − 1) // 2, the position table is resized
bilinearly, and a region is resampled to the grid by nearest neighbor.  A region that vanishes there attends only to its
own token: −100 is finite, but e^−100 is negligible.  In the paper's code the tokens of the other regions are keys as
well, at −100; they are omitted here, which makes no difference in float32 and makes an embedding independent of the
other regions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.towers import Tower, require

OUTSIDE = -100.0
CHUNK = 512  # regions whose attention weights are held at a time


class MaskedTokens:
    """Region embeddings of a Vision Transformer.

    Args:
        upsample: how many times finer than the patch size the token grid is; divides the patch size.
        start_block: first block with region tokens (0: all of them; negative counts from the end).
        half_positions: round the resized position table to half precision and back.  The paper's code does so whatever
            the precision of the rest; only needed to reproduce its numbers.

    Raises:
        ValueError: ``upsample`` below one.
    """

    paper = "Adapting CLIP, arXiv 2204.03647"
    requires = ("attention_blocks", "class_token", "class_pooling", "patch_stem")

    def __init__(self, upsample: int = 2, start_block: int = 0, half_positions: bool = False):
        if upsample < 1:
            raise ValueError(f"upsample says how many times finer the token grid gets: 1, 2, 4, …; got {upsample}.")
        self.upsample, self.start_block, self.half_positions = upsample, start_block, half_positions

    @torch.inference_mode()
    def __call__(self, tower: Tower, images: Tensor, masks: Tensor) -> Tensor:
        """Embeddings (B, R, E), not normalized, of the regions of normalized images.

        Args:
            tower: a ViT with a class token.
            images: (B, 3, H, W) of any size of at least one patch.
            masks: (B, R, H, W), bool or 0 and 1; regions may overlap.

        Raises:
            ValueError: a tower without class token, masks of the wrong size or without any pixels.
        """
        shape = (images.shape[0], *images.shape[-2:])
        if masks.ndim != 4 or (masks.shape[0], *masks.shape[-2:]) != shape or masks.shape[1] == 0:
            raise ValueError(
                f"regions are masks (B, R, H, W) over the images (B, 3, H, W) with R of at least one: expected "
                f"({shape[0]}, R, {shape[1]}, {shape[2]}), got {tuple(masks.shape)}."
            )
        empty = (masks != 0).flatten(2).any(-1).logical_not().nonzero().tolist()
        if empty:
            some = ", ".join(f"region {r} of image {b}" for b, r in empty[:3]) + (", …" if len(empty) > 3 else "")
            raise ValueError(f"{len(empty)} mask(s) without a single pixel: {some}. Leave empty regions out.")
        grid = self.grid_of(tower, images)
        return self.encode(tower, images, nearest(masks != 0, grid))

    @torch.inference_mode()
    def encode(self, tower: Tower, images: Tensor, cells: Tensor) -> Tensor:
        """As the call, from regions that are on the token grid already: ``cells`` (B, R, h, w) bool, maybe empty."""
        x, start = self._stem(tower, images), self.start_block
        depth = len(tower.blocks)
        if not -depth <= start < depth:
            raise ValueError(f"start_block={start}, but this tower has the blocks 0 to {depth - 1}.")
        bias = torch.where(cells.flatten(2).to(x.device), 0.0, OUTSIDE).to(x.dtype)
        for block in tower.blocks[: start % depth]:
            x = block(x)
        g = x[:, :1].expand(-1, cells.shape[1], -1)
        for block in tower.blocks[start % depth :]:
            g = self._update(block, g, x[:, 1:], bias)
            x = block(x)
        return tower.project(g)

    def grid_of(self, tower: Tower, images: Tensor) -> tuple[int, int]:
        """Token grid (h, w) of images (B, 3, H, W).

        Raises:
            ValueError: a tower without class token, images below one patch, ``upsample`` that does not divide it.
        """
        require(tower, self.requires, "region embedding by masked class tokens")
        patch = tower.stride
        if patch % self.upsample:
            raise ValueError(f"upsample={self.upsample} does not divide the patch size {patch} of {tower.card.name}.")
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < patch:
            raise ValueError(
                f"images are (B, 3, H, W), H and W at least {patch} pixels (one patch); got {tuple(images.shape)}."
            )
        added = 2 * ((patch - 1) // 2) - patch
        height, width = ((size + added) // (patch // self.upsample) + 1 for size in images.shape[2:])
        return height, width

    def positions(self, tower: Tower, grid: tuple[int, int]) -> Tensor:
        """Position table (1 + h·w, D) for a token grid (h, w): bilinear, the class token's row first."""
        table = tower.position_table(grid, "bilinear")
        return table.half().to(table.dtype) if self.half_positions else table

    def _stem(self, tower: Tower, images: Tensor) -> Tensor:
        """Tokens (B, 1 + h·w, D) that enter the first block."""
        grid, patch = self.grid_of(tower, images), tower.stride
        x = tower.patches(images, patch // self.upsample, (patch - 1) // 2)
        return tower.enter(x + self.positions(tower, grid).to(x.dtype), grid).x

    def _update(self, block, g: Tensor, patches: Tensor, bias: Tensor) -> Tensor:
        """Region tokens (B, R, D) after one block, from patches (B, N, D) and the bias (B, R, N)."""
        _, k, v = block.qkv(block.ln_1(patches))
        q, own_k, own_v = block.qkv(block.ln_1(g))
        parts = []
        for start in range(0, g.shape[1], CHUNK):
            some = slice(start, start + CHUNK)
            scores = block.scale * q[:, :, some] @ k.transpose(-2, -1) + bias[:, None, some]
            own = block.scale * (q[:, :, some] * own_k[:, :, some]).sum(-1, keepdim=True)
            weights = torch.cat([scores, own], -1).softmax(-1)
            parts.append(weights[..., :-1] @ v + weights[..., -1:] * own_v[:, :, some])
        g = g + block.out(torch.cat(parts, 2))
        return g + block.ffn(g)


def nearest(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(…, H, W) → (…, h, w) by nearest neighbor, as ``interpolate(mode="nearest")`` picks; of any dtype."""
    for dim, size in ((-2, grid[0]), (-1, grid[1])):
        indices = torch.arange(masks.shape[dim], dtype=torch.float32, device=masks.device)
        masks = masks.index_select(dim, F.interpolate(indices[None, None], size, mode="nearest")[0, 0].long())
    return masks
