"""Extract Free Dense Labels from CLIP (Zhou, Loy and Dai, ECCV 2022): MaskCLIP.

ViT     A = identity:  x' = x + O(v),  f = proj(ln_post(x' + FFN(x')))
ResNet  f = W_c (W_v x + b_v) + b_c at every position of the last stage, without position embedding

The value path keeps the output projection, the residual and the feed-forward.  With ``attn_pooling``, every position of
a ResNet queries the full attention pool instead.  Key smoothing and prompt denoising, which refine the scores, are in
``ovseg.score.denoise``.
"""

from torch import Tensor

from ovseg.registry import DENSE
from ovseg.towers import TokenState, Tower

from .base import patches
from .family import LastBlock


@DENSE.register_module()
class MaskCLIP(LastBlock):
    """The value path of the last block.

    Args:
        keys: return the keys of the last block, which key smoothing needs, as ``extras["keys"]`` (B, h·w, C): W_k x
            of a ResNet, O(k) after the output projection of a ViT.
        attn_pooling: let every position query the full attention pool (an option of the reference for ResNets).
        **options: see ``LastBlock``.

    The reference runs OpenAI's ViT weights with GELU and a layer-norm epsilon of 1e-6 instead of QuickGELU and 1e-5,
    and normalizes with ImageNet statistics.  The statistics are part of ``protocol``; the activation is not adopted.
    """

    requires: tuple[str, ...] = ()
    relations = ("identity",)
    positions = "exact"
    padding = "corner"
    name = "maskclip"
    paper = "MaskCLIP, ECCV 2022"
    protocol = dict(short_side=512, window=None, normalization="imagenet", templates="maskclip_85", logit_scale=100)

    def __init__(self, keys: bool = False, attn_pooling: bool = False, **options):
        super().__init__(**options)
        self.keys = keys
        if attn_pooling:
            self.relations = ("qk",)
        if keys or attn_pooling:
            self.requires = ("attention",)

    def extras(self, tower: Tower, state: TokenState) -> dict[str, Tensor]:
        if not self.keys:
            return {}
        block = tower.blocks[-1]
        _, k, _ = block.qkv(block.ln_1(state.x))
        keys = block.out(k) if block.has_residual else k.transpose(1, 2).flatten(2)
        return {"keys": patches(keys, state.grid)}
