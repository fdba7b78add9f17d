"""Explore the Potential of CLIP for Training-Free Open Vocabulary Semantic Segmentation (Shao et al., ECCV 2024).

    features     A = softmax(s·q qᵀ) + softmax(s·k kᵀ) + softmax(s·v vᵀ) in block L
                 (rows sum to 3; residual and feed-forward kept)
    correlation  R = mean over heads of (cos(q, q) + cos(k, k) + cos(v, v)) / 3 in block L−1
                 D = max(R[1:, 1:] − R[0, 1:], 0)      minus the class token's row, which marks global patches
    labels       the rows of D are clustered, and each cluster takes the most frequent label of its pixels:
                 ``ovseg.refine.ClusterVote``

The authors' code uses blocks 11 and 12; here they are L−1 and L for any depth L.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import DENSE
from ovseg.towers import TokenState, Tower

from .family import LastBlock


def correlation(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """R (B, N, N) of q, k, v (B, heads, N, d): a single product, since a mean of cosines is a cosine of
    concatenations."""
    unit = torch.cat([F.normalize(t, dim=-1).transpose(1, 2).flatten(2) for t in (q, k, v)], -1)
    return unit @ unit.transpose(1, 2) / (3 * q.shape[1])


def without_global_patches(r: Tensor) -> Tensor:
    """D (B, h·w, h·w) of R (B, 1 + h·w, 1 + h·w)."""
    return (r[:, 1:, 1:] - r[:, :1, 1:]).clamp(min=0)


@DENSE.register_module()
class CLIPtrase(LastBlock):
    """Recalibrated self-correlation; returns D as ``extras["correlation"]`` (B, h·w, h·w).

    The published numbers are for square crops processed without windows, with ``ClusterVote(0.7, 3)`` at 224 px and
    ``ClusterVote(1.1, 7)`` at 336 px; here the image is not cropped.  On VOC20 the scores are those of
    ``WholeImageScore``.

    Args:
        **options: see ``LastBlock``.
    """

    relations = ("qq", "kk", "vv")
    taps = ("block.-2.q", "block.-2.k", "block.-2.v")
    requires = ("attention_blocks", "class_token")
    name = "cliptrase"
    paper = "CLIPtrase, ECCV 2024"
    protocol = dict(
        short_side=224, window=None, logit_scale=100, refine=(dict(type="ClusterVote", eps=0.7, min_samples=3),)
    )

    def extras(self, tower: Tower, state: TokenState) -> dict[str, Tensor]:
        return {"correlation": without_global_patches(correlation(*(state.taps[tap] for tap in self.taps)))}
