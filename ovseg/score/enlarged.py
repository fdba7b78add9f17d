"""PixelCLIP's scores (NeurIPS 2024): features are enlarged bilinearly before the cosine, not the cosines after it."""

import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS

from .cosine import CosineScore


@SCORERS.register_module()
class EnlargedScore(CosineScore):
    """Cosine scores on a finer grid.

    Args:
        side: the map of a window is side × side.
    """

    name = "enlarged"

    def __init__(self, side: int = 64):
        super().__init__()
        self.side = side

    def prepare(self, dense: DenseFeatures) -> Tensor:
        fine = F.interpolate(dense.features.float(), (self.side, self.side), mode="bilinear", align_corners=False)
        return F.normalize(fine, dim=1)
