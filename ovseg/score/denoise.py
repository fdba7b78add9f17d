"""MaskCLIP's key smoothing and prompt denoising (Zhou et al., ECCV 2022, section 3.2).

    p = softmax_T(100·cos)
    prompt denoising   prompts whose p stays below t_d everywhere in the image get the score −100
    key smoothing      p replaces the scores; where max p < t_k:  p ← W p,  W = k̂ k̂ᵀ over positions (rows not
    normalized)

Denoising comes first.  The paper's k̂ is the key of a position at unit length; the reference code divides each channel
by its norm over positions (``key_norm="positions"``).
"""

import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS

from .cosine import CosineScore


@SCORERS.register_module()
class DenoisedScore(CosineScore):
    """Cosine scores with key smoothing and prompt denoising.

    Both need all prompts of an image at once, so the scores of the whole vocabulary are held on the patch grid.

    Args:
        key_smoothing: t_k in [0, 1], or None for no smoothing; requires ``MaskCLIP(keys=True)``.
        prompt_denoising: t_d in [0, 1], or None for no denoising.
        key_norm: ``channels`` (the paper) or ``positions`` (the reference code).

    Raises:
        ValueError: unknown ``key_norm``; the extractor returns no keys.
    """

    name = "denoised"

    def __init__(self, key_smoothing: float | None = None, prompt_denoising: float | None = None, key_norm="channels"):
        super().__init__()
        if key_norm not in ("channels", "positions"):
            raise ValueError(f"key_norm must be channels (paper) or positions (reference code), got {key_norm!r}.")
        self.key_smoothing, self.prompt_denoising, self.key_norm = key_smoothing, prompt_denoising, key_norm
        self.probabilities = key_smoothing is not None

    def forward(self, dense: DenseFeatures, text: Tensor) -> Tensor:
        scores = super().forward(dense, text)
        if self.prompt_denoising is not None:
            peak = (100 * scores).softmax(1).amax((2, 3), keepdim=True)
            scores = scores.masked_fill(peak < self.prompt_denoising, -100.0)
        if self.key_smoothing is None:
            return scores
        if "keys" not in dense.extras:
            raise ValueError(
                "key smoothing needs the keys of the last block: use dense=dict(type='MaskCLIP', keys=True)."
            )
        keys = F.normalize(dense.extras["keys"].float(), dim=2 if self.key_norm == "channels" else 1)
        p = (100 * scores).softmax(1)
        flat = p.flatten(2)
        smooth = flat @ keys @ keys.transpose(1, 2)  # W is symmetric
        unsure = flat.amax(1, keepdim=True) < self.key_smoothing
        return flat.where(~unsure, smooth).unflatten(2, p.shape[2:])
