"""Convolutional networks of timm inside open_clip's ``TimmModel``, read at every position (FC-CLIP, NeurIPS 2023).

    f(p) = head(x_p),      image embedding = head( mean_p x_p )

with x the last map and head all that the network does behind its global average pooling: the normalization of a
ConvNeXt, the last convolution of a MobileNet, the projection.  Where that is linear, the image embedding is the mean of
all f(p).  There is no attention and no class token: the head is the one block.  ``output_stride`` in the ``vision_cfg``
turns the last strides into dilations (``dilation``).
"""

import torch
from torch import Tensor, nn

from ovseg.registry import TOWERS

from .base import TokenState
from .parts import Parts
from .positions import as_size
from .timm_model import TRUNK, TimmFamily

PROBE = 64  # side in pixels of the picture that tells a network's stride; no network of timm has a larger one


class HeadBlock:
    """What comes behind the global pooling, at every position, in the interface of ``block.TappedBlock``."""

    has_residual = has_attention = False

    def __init__(self, visual: nn.Module):
        self.visual = visual

    def __call__(self, x: Tensor) -> Tensor:
        """(B, N, D) → (B, N, E): each position is a map of its own, over which pooling changes nothing."""
        y = self.visual.trunk.forward_head(x.flatten(0, 1)[:, :, None, None])
        return self.visual.head(y).unflatten(0, x.shape[:2])


@TOWERS.register_module(name="cnn")
class CNNTower(TimmFamily):
    """A ``TimmModel`` around a convolutional network; tokens are the h·w positions of its last map.

    Raises:
        ValueError: a network without a last map of its own or without global average pooling.
    """

    family = "cnn"

    def __init__(self, visual, clip, preprocess, card):
        super().__init__(visual, clip, preprocess, card)
        trunk = visual.trunk
        pools = {type(module).__name__: module for module in trunk.modules() if hasattr(module, "pool_type")}
        means = bool(pools) and all(pool.pool_type in ("avg", "fast") for pool in pools.values())
        if not means or "pool" in dict(visual.head.named_children()):
            raise ValueError(
                f"{card.name}: a convolutional tower is read densely behind global average pooling, and "
                f"{type(trunk).__name__} pools otherwise. Choose for example convnext_base_w/laion2b_s13b_b82k."
            )
        visual.to(memory_format=torch.channels_last)  # how convolutions run faster
        self.blocks = [HeadBlock(visual)]
        with torch.no_grad():
            probe = torch.zeros(1, 3, PROBE, PROBE, device=self.device, dtype=self.dtype)
            stage = trunk.forward_features(probe)
            try:
                self.embed_dim = self.blocks[0](stage.flatten(2).transpose(1, 2)).shape[-1]
            except RuntimeError as error:
                raise ValueError(
                    f"{card.name}: the projection does not fit what {type(trunk).__name__} gives behind its pooling; "
                    "write timm_proj='' in the vision_cfg, so that its own last layer projects."
                ) from error
        self.width, self.stride = stage.shape[1], PROBE // stage.shape[2]
        self.image_size = as_size(visual.image_size)
        self.table_grid = self.grid_of(*self.image_size)
        self.provides = frozenset()

    # --- the family -------------------------------------------------------------------------------------------------

    @classmethod
    def matches(cls, state, config):
        return any(name.startswith(TRUNK) for name in state) and not any(f"{TRUNK}patch_embed" in key for key in state)

    @classmethod
    def opens(cls, visual):
        trunk = cls.trunk_of(visual)
        return trunk is not None and not hasattr(trunk, "patch_embed") and hasattr(trunk, "forward_head")

    def visual_parts(self):
        norms = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)
        return Parts(
            modules=tuple(self.visual.modules()),
            norms=tuple(module for module in self.visual.modules() if isinstance(module, norms)),
            projection=self.linear_head(),
            blank={
                "extra_tokens": "a map has no room for more than the picture",
                "attention": "it has no attention",
                "positions": "its filters know no place",
                "blocks": "its head is its one block",
                "feed_forward": "it has no feed-forward layers",
            },
        )

    def resize_table(self, grid, mode):
        self.table_grid, self.image_size = tuple(grid), tuple(self.stride * length for length in grid)

    # --- the contract -----------------------------------------------------------------------------------------------

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Its filters reach beyond the border, so that a part of a stride is a position too."""
        return -(-height // self.stride), -(-width // self.stride)

    def start(self, images: Tensor, positions: str = "scale") -> TokenState:
        self._check(images)
        images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        stage = self.visual.trunk.forward_features(images)
        return TokenState(stage.flatten(2).transpose(1, 2), tuple(stage.shape[-2:]), 0)

    def project(self, z: Tensor) -> Tensor:
        return z

    def embedding(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.blocks[-1](x.mean(1, keepdim=True))[:, 0]
