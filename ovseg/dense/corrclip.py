"""CorrCLIP: attention restricted to patches of one mask, with weights from another network (Zhang et al., ICCV 2025).

    C = Êᵀ Ê,   M = γ (C − β·mean(C)),   A = softmax(M, over patches of the same mask),   f = proj(ln_post(O(A v)))

Based on the authors' README, not on their code: the scale of the similarities is taken from ProxyCLIP [inferred], and
the two auxiliary feature branches are not implemented.  The label of each mask is decided by ``ovseg.refine.MaskVote``
with the same masks.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import DENSE, MASKS
from ovseg.towers import Tower

from .features import DenseFeatures
from .proxyclip import ProxyCLIP


@DENSE.register_module()
class CorrCLIP(ProxyCLIP):
    """ProxyCLIP's attention restricted to masks.

    Args:
        masks: a mask source (``ovseg.regions.sources``), its config, or any function from a uint8 RGB image
            (H, W, 3) to region ids (H, W), −1 for no region.  The default requires no download.
        **options: see ``ProxyCLIP``.
    """

    name = "corrclip"
    paper = "CorrCLIP, ICCV 2025"
    protocol = dict(short_side=336, window=336, stride=112, logit_scale=40, refine=(dict(type="MaskVote"),))

    def __init__(self, masks=None, **options):
        super().__init__(**options)
        masks = dict(type="Superpixels") if masks is None else masks
        self.masks = MASKS.build(dict(masks)) if isinstance(masks, dict) else masks

    def regions(self, tower: Tower, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Region at the center of each patch of the grid, (B, h'·w').

        Raises:
            ValueError: masks whose size is not that of the image.
        """
        pixels = (tower.denormalize(images).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        maps = np.stack([np.asarray(self.masks(picture)) for picture in pixels])
        if maps.shape[1:] != tuple(images.shape[2:]):
            raise ValueError(f"masks of {maps.shape[1:]} for a picture of {tuple(images.shape[2:])}.")
        small = F.interpolate(torch.from_numpy(maps)[:, None].double(), grid, mode="nearest-exact")
        return small.flatten(1).long().to(images.device)

    def attention_mask(self, logits: Tensor, rows: slice, regions: Tensor | None = None) -> Tensor:
        """Pairs of patches in the same of the regions (B, h'·w')."""
        if regions is None:
            raise ValueError("CorrCLIP's attention stays within regions: pass those of ``CorrCLIP.regions``.")
        return regions[:, rows, None] == regions[:, None]

    def forward(self, tower: Tower, images: Tensor, external: Tensor | None = None) -> DenseFeatures:
        h, w = tower.grid_of(*images.shape[2:]) if external is None else external.shape[2:]
        return self.within(tower, images, external, self.regions(tower, images, (h, w)))
