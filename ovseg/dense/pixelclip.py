"""PixelCLIP: Towards Open-Vocabulary Semantic Segmentation Without Semantic Labels (Shin et al., NeurIPS 2024).

A = identity:  z = O(v) + x_class,   f = proj(ln_post(z + FFN(z)))

The dense CLIP of CAT-Seg on an image tower that was tuned with masks alone (``segmentors.pixelclip``); prediction
involves nothing else.  Without such weights it is CAT-Seg's dense CLIP before any training.
"""

from ovseg.registry import DENSE

from .family import LastBlock


@DENSE.register_module()
class PixelCLIP(LastBlock):
    """The value path with the class token's residual, enlarged to 64 × 64 before the cosine.

    Pass the authors' file or an exported one as ``weights``.  The published templates (``imagenet_select``) are assumed
    to be OpenAI's seven [inferred].
    """

    relations = ("identity",)
    residual = "class"
    positions = "exact"
    requires = ("attention_blocks", "class_token")
    scorer = dict(type="EnlargedScore")
    tuned = True
    name = "pixelclip"
    paper = "PixelCLIP, NeurIPS 2024"
    protocol = dict(size=(320, 320), window=None, templates="openai_7", logit_scale=100)
