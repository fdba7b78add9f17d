"""SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference (Wang, Mei and Yuille, ECCV 2024).

    A = softmax(s·q qᵀ) + softmax(s·k kᵀ)      (rows sum to 2),
    f = proj(ln_post(x' + FFN(x'))),   x' = x + O(A v)

The two softmaxes are added, not averaged: halving them changes the result, because the residual is kept.
"""

from ovseg.registry import DENSE

from .family import LastBlock


@DENSE.register_module()
class SCLIP(LastBlock):
    """Correlative self-attention in the last block."""

    relations = ("qq", "kk")
    name = "sclip"
    paper = "SCLIP, ECCV 2024"
    protocol = dict(short_side=336, window=224, stride=112, logit_scale=40)
