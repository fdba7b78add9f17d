"""The baseline: patch tokens of CLIP's unchanged last block, mapped by the projection of the class token.

A = softmax(s·q kᵀ),   f = proj(ln_post(x' + FFN(x'))),   x' = x + O(A v)
"""

from ovseg.registry import DENSE

from .family import LastBlock


@DENSE.register_module()
class Vanilla(LastBlock):
    """The unchanged last block ("Learning Transferable Visual Models from Natural Language Supervision")."""

    requires = ()
    name = "vanilla"
    paper = "CLIP, ICML 2021"
    protocol = dict(short_side=336, window=224, stride=112, logit_scale=40)
