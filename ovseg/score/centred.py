"""Scores relative to the mean word, for features whose length means something (Gandelsman et al., ICLR 2024).

s = ⟨f, t⟩ − mean over all words t' of ⟨f, t'⟩
"""

from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS

from .cosine import CosineScore


@SCORERS.register_module()
class CentredScore(CosineScore):
    """Inner products with features as they are, minus their mean over all words at that position.

    A soft-max or a maximum over words does not see the subtraction; heat maps of single words do: without it all of
    them show where the picture embedding comes from.  Looks at all words of a picture at once, so the scores of the
    whole vocabulary on the patch grid are held; with a single word they are zero.
    """

    name = "centered"

    def prepare(self, dense: DenseFeatures) -> Tensor:
        """The features themselves (B, E, h, w)."""
        return dense.features.float()

    def forward(self, dense: DenseFeatures, text: Tensor) -> Tensor:
        scores = super().forward(dense, text)
        return scores - scores.mean(1, keepdim=True)
