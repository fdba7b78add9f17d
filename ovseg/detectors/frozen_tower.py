"""A frozen CLIP tower as the backbone of a detector: levels, and a map in the joint space, from a single pass.

ViT      maps after chosen blocks, those of the last as the dense extractor has it before its projection (F-ViT: the
         value path of the last block); deconv₂→norm→GELU→deconv₂, deconv₂, identity, maxpool₂: strides p/4, p/2, p, 2p
         V (B, E, h, w): the extractor's dense map, each position divided by its length;  r = RoIAlign(V, box), one bin
ResNet   its four stages, strides 4 to 32;  V: the last of them;  r = attention pool of RoIAlign(V, box)   (F-VLM)

Only the deconvolutions are trained, so no gradients flow through the tower.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from ovseg.dense.base import to_grid
from ovseg.dense.windows import Box, windows
from ovseg.regions.pooling import pool_boxes
from ovseg.regions.regionclip import REQUIRES, first_token, table_side
from ovseg.registry import DENSE, MODELS
from ovseg.segmentors.clip_backbone import pyramid_steps
from ovseg.towers import Tower, require
from ovseg.towers.base import TokenState

SCALES = (0.25, 0.5, 1, 2)


class Listener:
    """Wraps a tower during one pass of a dense extractor and records the outputs of some of its blocks.

    Args:
        tower: attribute access falls through to it.
        blocks: their indices.
    """

    def __init__(self, tower: Tower, blocks: Sequence[int]):
        self._tower, self._blocks = tower, tuple(blocks)
        self._taps = {index: f"block.{index}.out" for index in blocks}
        self._state: TokenState | None = None
        self._projected: Tensor | None = None

    def __getattr__(self, name: str):
        return getattr(self._tower, name)

    def start(self, *inputs, **options) -> TokenState:
        self._state = self._tower.start(*inputs, **options)
        return self._state

    def advance(self, state: TokenState, stop: int, taps: Sequence[str] = ()) -> TokenState:
        return self._tower.advance(state, stop, [*dict.fromkeys([*taps, *self._taps.values()])])

    def project(self, z: Tensor) -> Tensor:
        if self._projected is None and z.shape[1] > 1:
            self._projected = z
        return self._tower.project(z)

    def maps(self) -> list[Tensor]:
        """(B, D, h, w) after each of the blocks; for the last block, the first input of the projection."""
        last, (h, w) = len(self._tower.blocks) - 1, self._state.grid
        tapped = self._state.taps
        if last in self._taps and self._projected is not None:
            tapped = tapped | {self._taps[last]: self._projected}
        self._tower.advance(self._state, last + 1, [tap for tap in self._taps.values() if tap not in tapped])
        tapped = self._state.taps | tapped
        return [to_grid(tapped[self._taps[index]][:, -h * w :], (h, w)) for index in self._blocks]


@MODELS.register_module()
class FrozenTower(BaseModule):
    """Levels (finest first) and the map V of normalized images.

    Args:
        tower: a ViT or a ResNet; it is frozen and stays in evaluation mode.
        dense: config of the dense extractor (ViT); F-ViT's by default.
        scales: strides of a ViT's levels in patches, some of ¼, ½, 1, 2.
        out_indices: the block of each, counted from 0; None: evenly spaced ones.
        norm_cfg: the normalization between the deconvolutions, BN by default.
        window, window_stride: run a ViT in overlapping windows of this side and stride,
            in pixels (whole patches), and average; for towers trained on small images only. None: whole images.

    Attributes:
        channels: channels of each level.
        strides: pixels per cell of each level.

    Raises:
        ValueError: blocks or strides that do not exist, or ViT settings for a ResNet.
    """

    def __init__(
        self,
        tower: Tower,
        dense: dict | None = None,
        scales: Sequence[float] = SCALES,
        out_indices: Sequence[int] | None = None,
        norm_cfg: dict | None = None,
        window: int | None = None,
        window_stride: int | None = None,
    ):
        super().__init__()
        self.tower = tower.requires_grad_(False)
        self.has_stages = "stages" in tower.provides
        if self.has_stages:
            require(tower, REQUIRES, "a detector on the stages of a tower")
            if dense is not None or out_indices is not None:
                raise ValueError("dense and out_indices are settings of a ViT; a ResNet gives its four stages.")
            self.channels, self.strides = [tower.width // 2**i for i in (3, 2, 1, 0)], [4, 8, 16, 32]
            return
        self.extractor = DENSE.build(dict(dense or dict(type="CLIPSelf"))).requires_grad_(False)
        depth = len(tower.blocks)
        even = [-(-depth * k // len(scales)) - 1 for k in range(1, len(scales) + 1)]
        self.out_indices = tuple(even if out_indices is None else out_indices)
        known = set(scales) <= set(SCALES) and all(0 <= index < depth for index in self.out_indices)
        if not known or not scales or len(self.out_indices) != len(scales):
            raise ValueError(
                f"scales are some of {', '.join(map(str, SCALES))}, and out_indices names one of the blocks 0 to "
                f"{depth - 1} for each; got {tuple(scales)} and {self.out_indices}."
            )
        self.window, self.window_stride = window, window_stride or window
        if any(length % tower.stride for length in (window or 0, window_stride or 0)):
            raise ValueError(f"window and window_stride are whole patches of {tower.stride} px.")
        steps = dict(zip(SCALES, pyramid_steps(tower.width, norm_cfg or dict(type="BN")), strict=True))
        self.steps = nn.ModuleList(steps[scale] for scale in scales)
        self.channels, self.strides = [tower.width] * len(scales), [tower.stride * scale for scale in scales]

    def train(self, mode: bool = True):
        """The tower and its extractor stay in evaluation mode."""
        super().train(mode)
        self.tower.eval()
        if not self.has_stages:
            self.extractor.eval()
        return self

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Levels (B, C, h, w) and V of normalized images (B, 3, H, W).

        Raises:
            ValueError: images whose sides are not whole patches.
        """
        if self.has_stages:
            with torch.no_grad():
                stages = self.tower.stages(images)
            return stages, stages[-1]
        height, width = images.shape[-2:]
        if height % self.tower.stride or width % self.tower.stride or min(height, width) < 2 * self.tower.stride:
            raise ValueError(
                f"pictures of {height}×{width} px are not two or more whole patches of {self.tower.stride} px: let the "
                f"data preprocessor pad them, pad_size_divisor={2 * self.tower.stride}."
            )
        with torch.no_grad():
            *maps, dense = self._read(images)
        levels = [step(each.contiguous()) for step, each in zip(self.steps, maps, strict=True)]
        return levels, F.normalize(dense, dim=1)

    def _read(self, images: Tensor) -> list[Tensor]:
        """The map after each of ``out_indices`` (B, D, h, w), and the dense one (B, E, h, w)."""
        boxes = windows(*images.shape[-2:], self.window, self.window_stride)
        parts = torch.cat([images[..., top:bottom, left:right] for top, left, bottom, right in boxes])
        listener = Listener(self.tower, self.out_indices)
        dense = self.extractor(listener, parts)
        outputs = [*listener.maps(), F.normalize(dense.features, dim=1)]
        if len(boxes) == 1:
            return outputs
        grid = self.tower.grid_of(*images.shape[-2:])
        return [self._stitched(each, boxes, grid) for each in outputs]

    def _stitched(self, parts: Tensor, boxes: list[Box], grid: tuple[int, int]) -> Tensor:
        """The mean (B, C, h, w) of maps of windows (n·B, C, h', w')."""
        parts = parts.unflatten(0, (len(boxes), -1))
        total, count = parts.new_zeros(*parts.shape[1:3], *grid), parts.new_zeros(grid)
        for part, place in zip(parts, boxes, strict=True):
            top, left, bottom, right = (length // self.tower.stride for length in place)
            total[..., top:bottom, left:right] += part
            count[top:bottom, left:right] += 1
        return total / count

    @torch.no_grad()
    def regions(self, seen: Tensor, boxes: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
        """r (ΣR, E), not normalized, from V and B tensors (R_b, 4) in pixels of images of ``image_size`` (H, W)."""
        if not self.has_stages:
            return pool_boxes(seen, boxes, image_size)
        side = table_side(self.tower)
        return first_token(self.tower, pool_boxes(seen, boxes, image_size, side))
