"""CLIPtrase's scores on VOC20 (Shao et al., ECCV 2024): each prompt's map times its score for the whole image.

s = ⟨f/‖f‖, t⟩ · ⟨e/‖e‖, t⟩ · 100
"""

import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS

from .cosine import CosineScore


@SCORERS.register_module()
class WholeImageScore(CosineScore):
    """Cosines weighted by those of the class token.

    Args:
        scale: the model's logit scale, 100 in the paper.
    """

    name = "whole_image"

    def __init__(self, scale: float = 100.0):
        super().__init__()
        self.scale = scale

    def prepare(self, dense: DenseFeatures) -> tuple[Tensor, Tensor]:
        token = dense.extras["class_token"] if "class_token" in dense.extras else dense.embedding
        return super().prepare(dense), F.normalize(token.float(), dim=1)

    def score(self, prepared: tuple[Tensor, Tensor], text: Tensor) -> Tensor:
        features, token = prepared
        return super().score(features, text) * (self.scale * token @ text.T)[:, :, None, None]
