"""CLIP-DINOiser's scores (Wysoczańska et al., ECCV 2024): probabilities, with a learned background for class 0.

p = softmax_T(100·cos),    p_0 ← 1 where max p < δ and sigmoid(b) ≤ 0.5
"""

from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS

from .cosine import CosineScore


@SCORERS.register_module()
class ForegroundScore(CosineScore):
    """Probabilities of the prompts; needs all prompts of an image at once.

    Args:
        background: assign uncertain positions outside the foreground to the first prompt. The paper does so on VOC21
            and COCO-Object only; requires a background class in the vocabulary and ``extras["foreground"]`` (B, 1, h,
            w).
        delta: δ in [0, 1].
    """

    name = "foreground"
    probabilities = True

    def __init__(self, background: bool = False, delta: float = 0.99):
        super().__init__()
        self.background, self.delta = background, delta
        self.first_is_background = background

    def forward(self, dense: DenseFeatures, text: Tensor) -> Tensor:
        p = (100 * super().forward(dense, text)).softmax(1)
        if self.background:
            unsure = p.amax(1, keepdim=True) < self.delta
            outside = dense.extras["foreground"].sigmoid() <= 0.5
            p[:, :1] = p[:, :1].masked_fill(unsure & outside, 1.0)
        return p
