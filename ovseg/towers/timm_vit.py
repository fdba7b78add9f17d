"""Vision Transformers of timm in open_clip's ``TimmModel``: SigLIP, SigLIP 2, PE-Core, MobileCLIP-B, ViTamin, EVA02-E.

Some have no class token; some read the picture out by a latent attention pool ("map").  Their patches reach the joint
space as the class token or the pool would: through the last normalization and, where there is a pool, through its value
path (``timm_block.pool_each``).
"""

import torch
from timm.layers import AttentionPoolLatent, RotaryEmbeddingCat
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ovseg.registry import TOWERS

from .base import TokenState
from .eva import EvaTower
from .parts import AttentionParts, Parts, Weight, fused
from .positions import as_size, resize_positions
from .timm_block import TimmBlock, TimmRotation, can_open, pool_each
from .timm_model import EVA_02, TRUNK, TimmFamily


@TOWERS.register_module(name="timm_vit")
class TimmViTTower(TimmFamily):
    """A ``TimmModel`` around a ``VisionTransformer`` or ``Eva``: class token and registers if any, then the patches.

    Raises:
        ValueError: a network whose blocks, pool, rotations or class tokens cannot be opened.
    """

    family = "timm_vit"

    def __init__(self, visual, clip, preprocess, card):
        super().__init__(visual, clip, preprocess, card)
        trunk = visual.trunk
        pool, rope = trunk.attn_pool, getattr(trunk, "rope", None)
        reasons = {
            "its blocks are of a kind that cannot be opened": not all(can_open(block) for block in trunk.blocks),
            "its pool is no latent attention pool": not (pool is None or _plain_pool(pool)),
            "its rotations are learned or mixed": not (rope is None or type(rope) is RotaryEmbeddingCat),
            "it has registers": getattr(trunk, "reg_token", None) is not None,
            f"it pools by {trunk.global_pool!r}": trunk.global_pool not in ("token", "avg", "map"),
        }
        if wrong := [reason for reason, holds in reasons.items() if holds]:
            raise ValueError(
                f"{card.name}: this {type(trunk).__name__} of timm cannot be read densely: {' and '.join(wrong)}. "
                "Choose for example ViT-B-16-SigLIP2/webli or ViT-B-16/openai."
            )
        self.prefix = trunk.num_prefix_tokens
        half = rope is not None and bool(getattr(trunk.blocks[0].attn, "rotate_half", False))
        self.rotation = None if rope is None else TimmRotation(rope, self.prefix, half)
        self.blocks = [TimmBlock(block, self.rotation) for block in trunk.blocks]
        self.image_size = as_size(visual.image_size)
        self.table_grid = tuple(trunk.patch_embed.grid_size)
        self.stride = trunk.patch_embed.img_size[0] // self.table_grid[0]
        self.width = trunk.embed_dim
        with torch.no_grad():
            self.embed_dim = self.project(torch.zeros(1, 1, self.width, device=self.device)).shape[-1]
        self._class_token_pooled = pool is None and trunk.global_pool == "token"
        has = {"attention_blocks": True, "attention": True, "class_token": self.prefix == 1}
        has |= {"class_pooling": self._class_token_pooled, "square_grid": self.table_grid[0] == self.table_grid[1]}
        self.provides = frozenset(name for name, holds in has.items() if holds)

    # --- the family -------------------------------------------------------------------------------------------------

    @classmethod
    def matches(cls, state, config):
        return any(f"{TRUNK}patch_embed" in name for name in state) and EVA_02 not in state

    @classmethod
    def opens(cls, visual):
        trunk = cls.trunk_of(visual)
        return type(trunk) is VisionTransformer or (isinstance(trunk, Eva) and not EvaTower.opens(visual))

    def visual_parts(self):
        trunk = self.visual.trunk
        table = trunk.pos_embed is not None
        return Parts(
            modules=tuple(self.visual.modules()),
            attention=tuple(_attention_parts(block.attn) for block in trunk.blocks),
            feed_forward=tuple(
                Weight(layer) for b in trunk.blocks for layer in b.mlp.modules() if isinstance(layer, nn.Linear)
            ),
            blocks=tuple(trunk.blocks),
            norms=tuple(module for module in self.visual.modules() if isinstance(module, nn.LayerNorm)),
            positions=(Weight(trunk, "pos_embed"),) if table else (),
            projection=self.linear_head(),
            blank={} if table else {"positions": "its patches know their place by rotations alone"},
        )

    def resize_table(self, grid, mode):
        trunk, embed = self.visual.trunk, self.visual.trunk.patch_embed
        if trunk.pos_embed is not None:
            trunk.pos_embed = nn.Parameter(self._table(grid, mode).detach().clone()[None])
        self.table_grid = embed.grid_size = tuple(grid)
        embed.num_patches = grid[0] * grid[1]
        self.image_size = embed.img_size = tuple(self.stride * length for length in grid)

    # --- the contract -----------------------------------------------------------------------------------------------

    def start(self, images: Tensor, positions: str = "scale") -> TokenState:
        self._check(images)
        trunk = self.visual.trunk
        patches = self._patches(images.to(self.dtype))
        grid = tuple(patches.shape[-2:])
        x, table = patches.flatten(2).transpose(1, 2), None
        if isinstance(getattr(trunk.patch_embed, "norm", None), nn.Module):
            x = trunk.patch_embed.norm(x)
        if trunk.pos_embed is not None:
            table = self._table(grid, positions).to(x.dtype)
            x = x + table[-x.shape[1] :]
        if trunk.cls_token is not None:
            first = trunk.cls_token if table is None or len(table) == x.shape[1] else trunk.cls_token + table[:1]
            x = torch.cat([first.expand(len(x), -1, -1), x], 1)
        self._turn(grid)
        return TokenState(trunk.norm_pre(x), grid, 0)

    def advance(self, state, stop, taps=()):
        self._turn(state.grid)
        return super().advance(state, stop, taps)

    def project(self, z: Tensor) -> Tensor:
        trunk = self.visual.trunk
        z = trunk.norm(z)
        if trunk.attn_pool is not None:
            z = pool_each(trunk.attn_pool, z)
        return self.visual.head(trunk.head(trunk.fc_norm(z)))

    def embedding(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        self._turn(grid)
        if self._class_token_pooled:
            return self.project(self.blocks[-1](x, slice(0, 1)))[:, 0]
        trunk = self.visual.trunk
        return self.visual.head(trunk.forward_head(trunk.norm(self.blocks[-1](x))))

    def _patches(self, images: Tensor) -> Tensor:
        """(B, D, h, w) of the stem: one convolution, or a small convolutional network (ViTamin)."""
        embed = self.visual.trunk.patch_embed
        maps = embed.backbone(images) if hasattr(embed, "backbone") else images
        return embed.proj(maps[-1] if isinstance(maps, (list, tuple)) else maps)

    def _table(self, grid: tuple[int, int], mode: str) -> Tensor:
        """The position table for a grid, with the class token's row where it has one."""
        table = self.visual.trunk.pos_embed[0]
        if len(table) > self.table_grid[0] * self.table_grid[1]:
            return resize_positions(table, grid, mode, self.table_grid)
        return resize_positions(torch.cat([table[:1], table]), grid, mode, self.table_grid)[1:]

    def _turn(self, grid: tuple[int, int]):
        if self.rotation is not None:
            self.rotation.use(grid, self.visual.trunk.blocks[0].attn.proj.weight)


def _plain_pool(pool: nn.Module) -> bool:
    own = type(pool) is AttentionPoolLatent and pool.pos_embed is None
    return own and pool.latent_len == 1 and pool.pool in ("token", "avg")


def _attention_parts(attention: nn.Module) -> AttentionParts:
    if attention.qkv is None:
        q, k, v = (Weight(layer) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
        modules = (attention, attention.q_proj, attention.k_proj, attention.v_proj, attention.proj)
    else:
        q, k, v = fused(attention.qkv, "weight")
        modules = (attention, attention.qkv, attention.proj)
    return AttentionParts(q, k, v, Weight(attention.proj), modules=modules)
