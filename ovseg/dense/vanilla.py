"""The baseline: plain patch tokens of CLIP's last block, put through the projection meant for the class token.

A = softmax(s·q kᵀ),   f = proj(ln_post(x' + FFN(x'))),   x' = x + O(A v)
"""

from ovseg.registry import DENSE

from .family import LastBlock


@DENSE.register_module()
class Vanilla(LastBlock):
    """Untouched last block ("Learning Transferable Visual Models from Natural Language Supervision")."""

    name = "vanilla"
    paper = "CLIP, ICML 2021"
    protocol = dict(short_side=336, window=224, stride=112, logit_scale=40)
