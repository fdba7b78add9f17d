"""Dense features × word embeddings → scores on the patch grid: the cosine, unscaled."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS


@SCORERS.register_module()
class CosineScore(nn.Module):
    """s = ⟨f/‖f‖, t⟩.

    A scorer is prepared once per picture and then asked for any range of words, so that a large vocabulary never needs
    all its maps at a time.  ``probabilities`` says what the scores are: cosines (False) or probabilities (True).  An
    ``activation`` makes them so only once the maps of a window are enlarged.
    """

    name = "cosine"
    probabilities = False
    activation = None

    def prepare(self, dense: DenseFeatures) -> Tensor:
        """Unit features (B, E, h, w)."""
        return F.normalize(dense.features.float(), dim=1)

    def score(self, prepared: Tensor, text: Tensor) -> Tensor:
        """Scores (B, T, h, w) of unit word embeddings (T, E)."""
        return torch.einsum("behw,te->bthw", prepared, text)

    def keeps_features(self, words: int, channels: int) -> bool:
        """Whether features take less memory than scores of so many words, and scores are inner products with them."""
        return type(self).score is CosineScore.score and words > channels

    def forward(self, dense: DenseFeatures, text: Tensor) -> Tensor:
        return self.score(self.prepare(dense), text)
