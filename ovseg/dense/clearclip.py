"""ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference (Lan et al., ECCV 2024).

    f = proj(ln_post( O(softmax(s·q qᵀ) v) ))         no residual, no feed-forward

``last_n`` sums O(softmax(s·q qᵀ) v) over the last blocks, each computed from the ordinary residual stream.
``relations``, ``residual`` and ``ffn`` give the paper's ablations (q kᵀ, value path, SCLIP's sum, with or without the
residual).
"""

from ovseg.registry import DENSE

from .family import LastBlock


@DENSE.register_module()
class ClearCLIP(LastBlock):
    """Query-query attention without the residual and the feed-forward."""

    relations = ("qq",)
    residual = False
    ffn = False
    padding = "symmetric"
    name = "clearclip"
    paper = "ClearCLIP, ECCV 2024"
    protocol = dict(short_side=448, window=448, stride=224, logit_scale=50)
