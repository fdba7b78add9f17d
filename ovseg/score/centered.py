"""Scores relative to the mean prompt, for features whose norm carries information (Gandelsman et al., ICLR 2024).

s = ⟨f, t⟩ − mean over all prompts t' of ⟨f, t'⟩
"""

from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS

from .cosine import CosineScore


@SCORERS.register_module()
class CenteredScore(CosineScore):
    """Inner products with unnormalized features, minus their mean over all prompts at that position.

    A softmax or maximum over prompts is invariant to the subtraction, but heat maps of single prompts are not: without
    it, all of them show where the image embedding comes from.  Needs all prompts of an image at once, so the scores of
    the whole vocabulary are held on the patch grid; with a single prompt they are zero.
    """

    name = "centered"

    def prepare(self, dense: DenseFeatures) -> Tensor:
        """The unnormalized features (B, E, h, w)."""
        return dense.features.float()

    def forward(self, dense: DenseFeatures, text: Tensor) -> Tensor:
        scores = super().forward(dense, text)
        return scores - scores.mean(1, keepdim=True)
