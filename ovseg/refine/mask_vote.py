"""Every mask takes the most frequent label of its pixels (the last step of CorrCLIP, ICCV 2025)."""

import numpy as np
import torch
from torch import Tensor

from ovseg.registry import MASKS, REFINERS

from .base import LabelRefiner, Picture
from .cluster import vote


@REFINERS.register_module()
class MaskVote(LabelRefiner):
    """One label per mask; pixels outside all masks keep theirs.

    Args:
        masks: a mask source (``ovseg.regions.sources``), its config, or any function from the image to region ids.
    """

    name = "mask_vote"
    sees_pixels = True

    def __init__(self, masks=None):
        super().__init__()
        masks = dict(type="Superpixels") if masks is None else masks
        self.masks = MASKS.build(dict(masks)) if isinstance(masks, dict) else masks

    def relabel(self, labels: Tensor, picture: Picture) -> Tensor:
        """Labels (H, W) after the vote.

        Raises:
            ValueError: masks whose size is not that of the image.
        """
        regions = torch.from_numpy(np.asarray(self.masks(picture.pixels))).to(labels.device)
        if regions.shape != labels.shape:
            raise ValueError(
                f"masks of {tuple(regions.shape)} for a picture of {tuple(labels.shape)}: region ids (H, W) must have "
                "the size of the picture."
            )
        return torch.where(regions < 0, labels, vote(labels, regions))
