"""A CLIP image tower as a backbone of MMSegmentation and MMDetection.

ViT      maps after chosen blocks (class token dropped); with a pyramid of strides p/4, p/2, p, 2p (patch side p):
         GN→deconv₂→BN→GELU→deconv₂,   GN→deconv₂,   GN,   GN→maxpool₂          (GN with one group; BEiT's, DenseCLIP's)
ResNet   its four stages, strides 4, 8, 16, 32
joint    [global (B, E), map (B, E, h, w)] behind the levels: ln_post→proj of all tokens of a ViT; of a ResNet the
         attention pool with every position as a query, o = W_c·softmax(s·q kᵀ) v over [mean, positions] + table
"""

import math
from collections.abc import Sequence

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ovseg.dense.base import to_grid
from ovseg.registry import MODELS
from ovseg.towers import Tower, load_tower, require
from ovseg.towers.base import TokenState
from ovseg.towers.positions import as_size
from ovseg.towers.tuning import apply


def pyramid_steps(width: int, norm_cfg: dict, first=None) -> list[nn.Module]:
    """Four maps (B, D, h, w) of stride p to strides p/4, p/2, p and 2p, one module each.

    Args:
        width: D.
        norm_cfg: the normalization between the two deconvolutions of the finest.
        first: ``first(1, D)`` builds the first module of each, such as ``nn.GroupNorm``; None: no such module.
    """

    def up():
        return nn.ConvTranspose2d(width, width, 2, 2)

    steps = [[up(), build_norm_layer(norm_cfg, width)[1], nn.GELU(), up()], [up()], [], [nn.MaxPool2d(2, 2)]]
    steps = [([] if first is None else [first(1, width)]) + layers for layers in steps]
    return [layers[0] if len(layers) == 1 and first is not None else nn.Sequential(*layers) for layers in steps]


STAGES = ("attention_pool", "stages")  # what a tower must have: these
BLOCKS = ("attention_blocks", "class_token", "patch_stem")  # or these


@MODELS.register_module()
class CLIPBackbone(BaseModule):
    """Levels of a CLIP image tower, for images of any size.

    Parameters carry OpenAI's names (``conv1``, ``transformer.resblocks.0…``, ``layer1…``), those of the pyramid
    ``fpn1`` to ``fpn4``.  All parameters that the output depends on are trained unless ``tuning`` says otherwise; all
    others are frozen.  A BatchNorm with a frozen scale keeps its statistics.

    Args:
        weights: see ``ovseg.towers.weights``, or a tower; None is the embedded demo model.
        out_indices: blocks of a ViT whose outputs are used; None: four, evenly spaced.
        pyramid: resample a ViT's four maps to four strides; False keeps them at the stride of the patches.
        joint: append [global, map] in the joint space.
        positions: how the position table is resized, see ``ovseg.towers.positions``.
        position_size: side or (H, W) in pixels of the images whose position table is held; None: that of the weights.
        class_token_twice: add the class embedding of a ViT a second time, as DenseCLIP's code does.
        norm_cfg: the normalization inside the pyramid's finest level, BN by default. SyncBN requires CUDA; instead, set
            ``sync_bn="torch"`` in the config, which turns every BatchNorm into it in distributed runs.
        tuning: presets of ``ovseg.towers.tuning``; everything else in the tower is frozen. ``()`` freezes all of it.
        arch, quick_gelu: for weight files that do not record them.

    Attributes:
        tower: the tower, which shares its modules with the backbone.
        channels: channels of each level.
        embed_dim: E.
        depth: number of blocks or stages.

    Raises:
        ValueError: a tower of another kind, blocks that do not exist, a pyramid of other than four maps, or a preset
            with a loss of its own.
    """

    def __init__(
        self,
        weights: str | Tower | None = None,
        out_indices: Sequence[int] | None = None,
        pyramid: bool = True,
        joint: bool = False,
        positions: str = "exact",
        position_size: int | tuple[int, int] | None = None,
        class_token_twice: bool = False,
        norm_cfg: dict | None = None,
        tuning: Sequence[dict] | None = None,
        arch: str | None = None,
        quick_gelu: bool | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        tower = weights if isinstance(weights, Tower) else load_tower(weights, arch=arch, quick_gelu=quick_gelu)
        self._kept = [tower]  # in a list, so that its modules are registered once, under OpenAI's names
        self.joint, self.positions, self.class_token_twice = joint, positions, class_token_twice
        self.has_stages, self.embed_dim = "stages" in tower.provides, tower.embed_dim
        require(tower, STAGES if self.has_stages else BLOCKS, type(self).__name__)
        self.depth = 4 if self.has_stages else len(tower.blocks)
        if position_size is not None:
            tower.resize_table(tuple(side // tower.stride for side in as_size(position_size)), positions)
        self._tune(tuning)
        for name, module in tower.visual.named_children():
            self.add_module(name, module)
        for name, parameter in tower.visual.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.pyramid = pyramid and not self.has_stages
        self.out_indices = self._indices(out_indices)
        if self.has_stages:
            self.channels = [tower.width // 2**i for i in (3, 2, 1, 0)]
        else:
            self.channels = [tower.width] * len(self.out_indices)
        if self.pyramid:
            for number, step in enumerate(pyramid_steps(tower.width, norm_cfg or dict(type="BN"), nn.GroupNorm), 1):
                self.add_module(f"fpn{number}", step)
        for name, parameter in self.named_parameters():
            if not self._is_read(name):
                parameter.requires_grad_(False)

    @property
    def tower(self) -> Tower:
        return self._kept[0]

    def layer_of(self, name: str) -> int:
        """The depth of a parameter of this module: −1 before the first block or stage, its index, ``depth`` after the
        last."""
        if name.startswith("transformer.resblocks."):
            return int(name.split(".")[2])
        if self.has_stages and name.startswith("layer"):
            return int(name[len("layer")]) - 1
        first = ("class_embedding", "positional_embedding", "visual_prompts", "conv", "bn", "ln_pre")
        return -1 if name.startswith(first) else self.depth

    def forward(self, images: Tensor) -> tuple:
        """Levels (B, C, h, w), finest first, and with ``joint`` a last element [global (B, E), map (B, E, h, w)].

        Args:
            images: (B, 3, H, W) RGB, normalized.

        Raises:
            ValueError: images smaller than a patch, or than two patches a side with a pyramid.
        """
        self._share()
        levels, joint = self._stages(images) if self.has_stages else self._blocks(images)
        return (*levels, joint) if self.joint else tuple(levels)

    def train(self, mode: bool = True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm) and module.affine and not module.weight.requires_grad:
                module.eval()
        return self

    def _share(self):
        """Point the tower to the modules registered here, including replaced ones (SyncBN, dtype conversion)."""
        visual = self.tower.visual
        for own, theirs in ((self._modules, visual._modules), (self._parameters, visual._parameters)):
            theirs.update({name: own[name] for name in theirs if name in own})

    def _tune(self, tuning):
        self.tower.visual.requires_grad_(tuning is None)
        for preset in apply(self.tower, tuning or ()):
            if preset.penalty() is not None:
                raise ValueError(
                    f"{type(preset).__name__} adds a term to the loss, and a backbone has none; leave its weight at 0."
                )

    def _indices(self, out_indices) -> tuple[int, ...]:
        if self.has_stages:
            if out_indices is not None and tuple(out_indices) != (0, 1, 2, 3):
                raise ValueError(f"a ResNet gives its four stages; leave out_indices={tuple(out_indices)} out.")
            return (0, 1, 2, 3)
        chosen = [math.ceil(self.depth * k / 4) - 1 for k in (1, 2, 3, 4)] if out_indices is None else out_indices
        if not chosen or not all(-self.depth <= i < self.depth for i in chosen):
            raise ValueError(f"out_indices={tuple(chosen)}: the blocks of this tower are 0 to {self.depth - 1}.")
        if self.pyramid and len(chosen) != 4:
            raise ValueError(
                f"the pyramid makes four strides of four maps, out_indices={tuple(chosen)} names {len(chosen)}. Name "
                "four blocks (one may be named twice), or write pyramid=False."
            )
        return tuple(i % self.depth for i in chosen)

    def _is_read(self, name: str) -> bool:
        """Whether the output depends on a parameter."""
        if self.joint:
            return True
        layer = self.layer_of(name)
        return layer <= max(self.out_indices) or name.startswith("fpn")

    def _start(self, images: Tensor) -> TokenState:
        x, grid = self.tower.embed(images, self.positions)
        if self.class_token_twice:
            x = torch.cat([x[:, :1] + self.class_embedding.to(x.dtype), x[:, 1:]], 1)
        if self.pyramid and min(grid) < 2:
            side = 2 * self.tower.stride
            raise ValueError(
                f"the coarsest level of the pyramid needs pictures of at least {side}×{side} pixels, got "
                f"{tuple(images.shape[-2:])}. Enlarge them, or write pyramid=False."
            )
        return self.tower.enter(x, grid)

    def _blocks(self, images: Tensor):
        state = self._start(images)
        maps = {}
        for index in sorted(set(self.out_indices)):
            state = self.tower.advance(state, index + 1)
            maps[index] = to_grid(state.x[:, 1:], state.grid)
        levels = [maps[index] for index in self.out_indices]
        if self.pyramid:
            steps = (self.fpn1, self.fpn2, self.fpn3, self.fpn4)
            levels = [step(level.contiguous()) for step, level in zip(steps, levels, strict=True)]
        if not self.joint:
            return levels, None
        z = self.tower.project(self.tower.advance(state, self.depth).x)
        return levels, [z[:, 0], to_grid(z[:, 1:], state.grid)]

    def _stages(self, images: Tensor):
        stages = self.tower.stages(images)
        joint = list(self.tower.everywhere(stages[-1], self.positions)) if self.joint else None
        return stages, joint
