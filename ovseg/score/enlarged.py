"""PixelCLIP's scores (NeurIPS 2024): features are upsampled bilinearly before the cosine, instead of the cosines."""

import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS

from .cosine import CosineScore


@SCORERS.register_module()
class EnlargedScore(CosineScore):
    """Cosine scores on a finer grid.

    Args:
        side: height and width of a window's map.
    """

    name = "enlarged"

    def __init__(self, side: int = 64):
        super().__init__()
        self.side = side

    def prepare(self, dense: DenseFeatures) -> Tensor:
        fine = F.interpolate(dense.features.float(), (self.side, self.side), mode="bilinear", align_corners=False)
        return F.normalize(fine, dim=1)
