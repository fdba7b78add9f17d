"""open_clip's plain Vision Transformer (OpenAI, LAION, MetaCLIP, DFN, DataComp, CLIPA, CoCa, …)."""

import torch
import torch.nn.functional as F
from open_clip.model import CLIPVisionCfg
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from ovseg.registry import TOWERS

from .base import TokenState
from .block import TappedBlock
from .family import TowerFamily
from .parts import Parts, Weight, transformer_parts, weight_and_bias
from .plain import open_clip_visual
from .positions import as_recorded, as_size, recorded_grid, resize_positions


@TOWERS.register_module(name="vit")
class ViTTower(TowerFamily):
    """open_clip ``VisionTransformer``: class token first, then h·w patches, row by row."""

    family = "vit"

    def __init__(self, visual, clip, preprocess, card):
        super().__init__(visual, clip, preprocess, card)
        if getattr(visual, "attn_pool_contrastive", None) is not None:
            raise ValueError(
                f"{card.name}: this Vision Transformer has two attention pools, which cannot be read densely. Choose "
                "for example coca_ViT-B-32/laion2b_s13b_b90k or ViT-B-16/openai."
            )
        self.blocks = [TappedBlock(block) for block in visual.transformer.resblocks]
        self.stride = visual.conv1.kernel_size[0]
        self.image_size = as_size(visual.image_size)
        self.table_grid = tuple(visual.grid_size)
        self.width = visual.conv1.out_channels
        self.embed_dim = self.width if visual.proj is None else visual.proj.shape[1]
        self._class_token_pooled = visual.attn_pool is None and visual.pool_type == "tok"
        self.provides = frozenset(
            {"attention", "attention_blocks", "class_token", "patch_stem", "additive_heads"}
            | ({"class_pooling"} if self._class_token_pooled else set())
            | ({"square_grid"} if self.table_grid[0] == self.table_grid[1] else set())
        )

    # --- the family -------------------------------------------------------------------------------------------------

    @classmethod
    def matches(cls, state, config):
        return "visual.class_embedding" in state and "visual.conv1.weight" in state

    @classmethod
    def opens(cls, visual):
        return isinstance(visual, VisionTransformer)

    @classmethod
    def vision_config(cls, state, config):
        width, _, patch, _ = state["visual.conv1.weight"].shape
        patches = len(state["visual.positional_embedding"]) - 1
        layers = {key.split(".")[3] for key in state if key.startswith("visual.transformer.resblocks.")}
        hidden = len(state["visual.transformer.resblocks.0.mlp.c_fc.weight"])
        grid = recorded_grid(patches, config.get("image_size"), patch)
        shapes = {"layers": len(layers), "width": width, "patch_size": patch, "mlp_ratio": hidden / width}
        return shapes | {"image_size": as_recorded((patch * grid[0], patch * grid[1]))} | dict(config)

    @classmethod
    def attention_config(cls, state, heads, eps):
        width = len(state["visual.conv1.weight"])
        own = {} if heads is None else {"head_width": width // heads}
        return own if eps is None else own | {"norm_kwargs": {"eps": eps}}

    @classmethod
    def from_state(cls, state, config, quick_gelu, embed_dim=None):
        projection = state.get("visual.proj")
        if embed_dim is None:
            embed_dim = config["width"] if projection is None else projection.shape[1]
        return open_clip_visual(embed_dim, CLIPVisionCfg(**config), quick_gelu)

    def recorded_config(self):
        block = self.visual.transformer.resblocks[0]
        return {
            "layers": len(self.blocks),
            "width": self.width,
            "patch_size": self.stride,
            "image_size": as_recorded(self.image_size),
            "mlp_ratio": block.mlp.c_fc.weight.shape[0] / self.width,
            "head_width": self.width // self.blocks[-1].heads,
        }

    def visual_parts(self):
        projection = self.visual.proj
        linear = isinstance(projection, nn.Module)
        own = () if projection is None else (Weight(self.visual, "proj"),)
        return Parts(
            modules=tuple(self.visual.modules()),
            **transformer_parts(self.visual),
            positions=(Weight(self.visual, "positional_embedding"),),
            projection=weight_and_bias(projection) if linear else own,
        )

    def resize_table(self, grid, mode):
        table = resize_positions(self.visual.positional_embedding, grid, mode, self.table_grid)
        self.visual.positional_embedding = nn.Parameter(table.detach().clone())
        self.table_grid = self.visual.grid_size = tuple(grid)
        self.image_size = self.visual.image_size = tuple(self.stride * length for length in grid)

    # --- the contract -----------------------------------------------------------------------------------------------

    def start(self, images: Tensor, positions: str = "scale") -> TokenState:
        x, grid = self.embed(images, positions)
        return self.enter(x, grid)

    def enter(self, x: Tensor, grid: tuple[int, int]) -> TokenState:
        """What ``embed`` gives, through the first normalization."""
        return TokenState(self.visual.ln_pre(x), grid, 0)

    def embed(self, images: Tensor, positions: str = "scale") -> tuple[Tensor, tuple[int, int]]:
        """Class token and patches plus positions, before the first normalization: (B, 1 + h·w, D) and (h, w)."""
        self._check(images)
        patches = self.visual.conv1(images.to(self.dtype))
        grid = tuple(patches.shape[-2:])
        x = self._with_class_token(patches)
        return x + self.position_table(grid, positions).to(x.dtype), grid

    def patches(self, images: Tensor, stride: int, padding: int) -> Tensor:
        """Class token and patches without positions, of patches that may overlap: (B, 1 + h·w, D)."""
        conv = self.visual.conv1
        return self._with_class_token(F.conv2d(images.to(self.dtype), conv.weight, conv.bias, stride, padding))

    def position_table(self, grid: tuple[int, int], mode: str = "scale") -> Tensor:
        """The position table (1 + h·w, D) for a grid (h, w)."""
        return resize_positions(self.visual.positional_embedding, grid, mode, self.table_grid)

    def _with_class_token(self, patches: Tensor) -> Tensor:
        x = patches.flatten(2).transpose(1, 2)
        return torch.cat([self.visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], 1)

    def project(self, z: Tensor) -> Tensor:
        if self.visual.attn_pool is not None:  # CoCa
            z = value_path(self.visual.attn_pool, z)
        z = self.visual.ln_post(z)
        return z if self.visual.proj is None else z @ self.visual.proj

    def embedding(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self._class_token_pooled:  # only the class token is read, so only its row of the last block is computed
            return self.project(self.blocks[-1](x, slice(0, 1)))[:, 0]
        pooled, _ = self.visual._pool(self.blocks[-1](x))
        return pooled if self.visual.proj is None else pooled @ self.visual.proj


def value_path(pool: nn.Module, x: Tensor) -> Tensor:
    """CoCa's attention pool with every token as the only one it sees: (B, N, D) → (B, N, E)."""
    attention, x = pool.attn, pool.ln_k(x)
    fused, third = attention.in_proj_weight, attention.embed_dim
    weight = attention.v_proj_weight if fused is None else fused[2 * third :]
    bias = None if attention.in_proj_bias is None else attention.in_proj_bias[2 * third :]
    return attention.out_proj(F.linear(x, weight, bias))
