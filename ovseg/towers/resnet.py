"""CLIP's ModifiedResNet with its attention pool opened: the pool is the one block of this tower.

The pool attends from the mean of the last stage to all its positions.  As MaskCLIP does, dense features leave its
position table out; only the image embedding uses it.
"""

import torch
from open_clip.model import CLIPVisionCfg
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from ovseg.registry import TOWERS

from .attention_pool import PoolBlock, pool_everywhere
from .base import TokenState
from .family import TowerFamily
from .parts import AttentionParts, Parts, Weight, weight_and_bias
from .plain import open_clip_visual
from .positions import as_recorded, as_size, resize_positions, square_grid

STAGES = ("layer1", "layer2", "layer3", "layer4")


@TOWERS.register_module(name="resnet")
class ResNetTower(TowerFamily):
    """open_clip ``ModifiedResNet``; tokens are the mean of the last stage and its h·w positions."""

    family = "resnet"
    stride = 32

    def __init__(self, visual, clip, preprocess, card):
        super().__init__(visual, clip, preprocess, card)
        visual.to(memory_format=torch.channels_last)  # how convolutions run faster
        self.blocks = [PoolBlock(visual.attnpool)]
        self.image_size = as_size(visual.image_size)
        self.table_grid = square_grid(len(visual.attnpool.positional_embedding) - 1)
        self.width = visual.attnpool.q_proj.in_features
        self.embed_dim = visual.attnpool.c_proj.out_features
        self.provides = frozenset({"attention", "attention_pool", "stages", "square_grid"})

    # --- the family -------------------------------------------------------------------------------------------------

    @classmethod
    def matches(cls, state, config):
        return "visual.attnpool.positional_embedding" in state

    @classmethod
    def opens(cls, visual):
        return isinstance(visual, ModifiedResNet)

    @classmethod
    def vision_config(cls, state, config):
        layers = [len({key.split(".")[2] for key in state if key.startswith(f"visual.{stage}.")}) for stage in STAGES]
        side, _ = square_grid(len(state["visual.attnpool.positional_embedding"]) - 1)
        width = state["visual.layer1.0.conv1.weight"].shape[0]
        return {"layers": tuple(layers), "width": width, "patch_size": None, "image_size": 32 * side} | dict(config)

    @classmethod
    def attention_config(cls, state, heads, eps):
        width = state["visual.attnpool.c_proj.weight"].shape[1]
        return {} if heads is None else {"head_width": width // heads}  # it has no layer norms

    @classmethod
    def from_state(cls, state, config, quick_gelu, embed_dim=None):
        if not isinstance(config["image_size"], int):
            raise ValueError(
                f"open_clip's ModifiedResNet has a square position table; image_size={config['image_size']} is none. "
                "Write one number, the side in pixels."
            )
        embed_dim = embed_dim or len(state["visual.attnpool.c_proj.weight"])
        return open_clip_visual(embed_dim, CLIPVisionCfg(**config), quick_gelu)

    def recorded_config(self):
        layers = [len(getattr(self.visual, stage)) for stage in STAGES]
        shapes = {"layers": layers, "width": self.width // 32, "patch_size": None}
        heads = {} if self.width == 64 * self.blocks[0].heads else {"head_width": self.width // self.blocks[0].heads}
        return shapes | {"image_size": as_recorded(self.image_size)} | heads

    def visual_parts(self):
        pool = self.visual.attnpool
        linear = (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj)
        return Parts(
            modules=tuple(self.visual.modules()),
            attention=(AttentionParts(*(Weight(layer) for layer in linear), modules=linear),),
            blocks=tuple(block for stage in STAGES for block in getattr(self.visual, stage)),
            norms=tuple(module for module in self.visual.modules() if isinstance(module, nn.BatchNorm2d)),
            positions=(Weight(pool, "positional_embedding"),),
            projection=weight_and_bias(pool.c_proj),
            blank={"extra_tokens": "its blocks are convolutions, and a map has no room for more than the picture"},
        )

    def resize_table(self, grid, mode):
        if grid[0] != grid[1]:
            raise ValueError(f"the attention pool of a ResNet has a square position table; got {grid[0]}×{grid[1]}.")
        pool = self.visual.attnpool
        pool.positional_embedding = nn.Parameter(
            resize_positions(pool.positional_embedding, grid, mode, self.table_grid).detach().clone()
        )
        self.table_grid = tuple(grid)
        self.image_size, self.visual.image_size = tuple(self.stride * n for n in grid), self.stride * grid[0]

    # --- the contract -----------------------------------------------------------------------------------------------

    def stages(self, images: Tensor, count: int = 4) -> list[Tensor]:
        """The first ``count`` of the four stages, (B, D/8, H/4, W/4) to (B, D, h, w)."""
        self._check(images)
        x, stages = self.visual.stem(images.to(self.dtype)), []
        for name in STAGES[:count]:
            stages.append(x := getattr(self.visual, name)(x))
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
        table = resize_positions(self.visual.attnpool.positional_embedding, grid, table_grid=self.table_grid)
        return self.blocks[-1](x + table.to(x.dtype), slice(0, 1))[:, 0]

    def everywhere(self, stage: Tensor, positions: str = "bilinear") -> tuple[Tensor, Tensor]:
        """The pool at all positions of the last stage, see ``pool_everywhere``."""
        return pool_everywhere(self.visual.attnpool, stage, positions)
