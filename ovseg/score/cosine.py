"""Dense features × text embeddings → unscaled cosines on the patch grid."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS


@SCORERS.register_module()
class CosineScore(nn.Module):
    """s = ⟨f/‖f‖, t⟩.

    A scorer is prepared once per image and then evaluated for any range of prompts, so that a large vocabulary never
    needs all its maps at once.  ``probabilities`` says whether the scores are probabilities (True) or cosines (False).
    An ``activation`` is applied after the maps of a window have been enlarged.  ``first_is_background`` says whether
    the first prompt stands for what no other one fits; otherwise the order of the prompts does not matter.
    """

    name = "cosine"
    probabilities = False
    activation = None
    first_is_background = False

    def prepare(self, dense: DenseFeatures) -> Any:
        """What ``score`` reads of the images: here unit features (B, E, h, w)."""
        return F.normalize(dense.features.float(), dim=1)

    def score(self, prepared: Any, text: Tensor) -> Tensor:
        """Scores (B, T, h, w) for unit text embeddings (T, E)."""
        return torch.einsum("behw,te->bthw", prepared, text)

    def keeps_features(self, words: int, channels: int) -> bool:
        """Whether scores are inner products with the features, and features take less memory than so many scores."""
        return type(self).score is CosineScore.score and words > channels

    def forward(self, dense: DenseFeatures, text: Tensor) -> Tensor:
        return self.score(self.prepare(dense), text)
