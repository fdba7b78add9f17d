"""CLIPSelf: Vision Transformer Distills Itself for Open-Vocabulary Dense Prediction (Wu et al., ICLR 2024).

A = identity:  x' = x + O(v),  f = proj(ln_post(x' + FFN(x')))

MaskCLIP's value path on a tower that was tuned so that the mean of its unit features under a box matches the embedding
of the crop (``detectors.clipself``); prediction involves nothing else.  Without such weights, the features are
MaskCLIP's. With EVA-02 towers, O begins with the sub-LN.
"""

from ovseg.registry import DENSE

from .family import LastBlock


@DENSE.register_module()
class CLIPSelf(LastBlock):
    """The value path of the last block with residual and feed-forward.

    Pass CLIPSelf's own file or an exported one as ``weights``.  The paper evaluates boxes and masks at 1024 px
    (ViT-B/16) and 896 px (ViT-L/14); it has no protocol for label maps, so the one here is ours.
    """

    relations = ("identity",)
    positions = "exact"
    requires = ("attention_blocks",)
    tuned = True
    name = "clipself"
    paper = "CLIPSelf, ICLR 2024"
    protocol = dict(short_side=1024, window=None, templates="imagenet_80", logit_scale=100)
