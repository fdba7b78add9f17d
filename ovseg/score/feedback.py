"""ResCLIP's second pass (Yang et al., CVPR 2025): the classes of a first pass steer the attention of the last block.

    first pass   class of a pixel: argmax of the enlarged cosines, prompt 0 where softmax(τ·cos) < θ;
                 class of a patch: the most frequent one among its pixels; of equally frequent ones that whose pixels
                 have the larger sum of cosines, so that the order of the prompts does not matter    [inferred]
    second pass  cosines of the features recomputed with Sem (``ovseg.dense.resclip.semantic_feedback``)

The scale of the softmax before θ in the authors' code is [inferred]; θ = 0 does not depend on it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.dense.resclip import semantic_feedback
from ovseg.registry import SCORERS

from .cosine import CosineScore


@SCORERS.register_module()
class FeedbackScore(CosineScore):
    """Cosines after semantic feedback; needs all prompts of a window at once.

    Args:
        threshold: θ in [0, 1].
        logit_scale: τ of the softmax before θ.
        pixels: pixels per patch side at which the first pass votes.

    Raises:
        ValueError: the extractor cannot recompute its last block.
    """

    name = "feedback"

    def __init__(self, threshold: float = 0.0, logit_scale: float = 40.0, pixels: int = 4):
        super().__init__()
        self.threshold, self.logit_scale, self.pixels = threshold, logit_scale, pixels
        self.first_is_background = threshold > 0

    def patch_classes(self, scores: Tensor) -> Tensor:
        """The class of each patch, (h, w), in the first pass, from cosines (T, h, w)."""
        large = F.interpolate(scores[None], scale_factor=self.pixels, mode="bilinear", align_corners=False)[0]
        best, labels = large.max(0)
        if self.threshold > 0:
            labels = labels.masked_fill((self.logit_scale * large).softmax(0).amax(0) < self.threshold, 0)
        labels, best = (self._by_patch(map_, *scores.shape[1:]) for map_ in (labels, best))
        alike = labels[..., None] == labels[..., None, :]  # (h, w, n, n) of the n pixels of a patch
        votes, sums = alike.sum(-1), (alike * best[..., None, :]).sum(-1)
        winner = sums.masked_fill(votes < votes.amax(-1, keepdim=True), -torch.inf).argmax(-1, keepdim=True)
        return labels.gather(-1, winner)[..., 0]

    def _by_patch(self, pixels: Tensor, h: int, w: int) -> Tensor:
        """(h·p, w·p) → (h, w, p²) for p pixels per patch side."""
        return pixels.view(h, self.pixels, w, self.pixels).transpose(1, 2).flatten(2)

    def forward(self, dense: DenseFeatures, text: Tensor) -> Tensor:
        if dense.reread is None:
            raise ValueError("FeedbackScore computes the last block twice, so it only works with the method resclip.")
        first = super().forward(dense, text)
        semantic = torch.stack([semantic_feedback(self.patch_classes(scores)) for scores in first])
        return self.score(F.normalize(dense.reread(semantic, slice(None)).float(), dim=1), text)
