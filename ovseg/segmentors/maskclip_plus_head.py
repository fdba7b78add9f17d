"""MaskCLIP+'s student head (Zhou, Loy and Dai, ECCV 2022): a decode head that ends in frozen text embeddings.

logit_c = ⟨f, t_c⟩,   f (E) the head's unnormalized features, t_c the unit embedding of class c

There is no temperature.  The head is any of MMSegmentation's with E channels before its last layer; DeepLabv2's,
which MMSegmentation does not have, is ``ASPPV2Head``:

f = Σ_d Conv3×3_d(x),   d ∈ {6, 12, 18, 24} the dilations
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ovseg.registry import MODELS
from ovseg.text.vocabulary import Vocabulary

from .text_head import TextClassifier, head_for


class FrozenWords(TextClassifier):
    """Text embeddings as the weights of the last layer; only the background vector is trained.

    Args:
        vocabulary, weights, templates, arch, quick_gelu: see ``TextClassifier``.
        background: class 0 gets a learned unit vector in place of its text embedding.

    Raises:
        ValueError: ``background`` for a vocabulary whose class 0 has several names.
    """

    def __init__(self, vocabulary, *source, background: bool = False):
        super().__init__(1, vocabulary, *source)
        self.project = nn.Identity()
        del self.log_scale
        self.background = nn.Parameter(torch.randn(self.text.shape[1])) if background else None
        if background and self.vocabulary.prompt_to_class.count(0) != 1:
            raise ValueError("a learned background replaces the one word of class 0; give that class one word.")

    def words(self, x: Tensor) -> Tensor:
        text = self.text
        if self.background is not None:
            text = torch.cat([F.normalize(self.background, dim=0)[None], text[1:]])
        return torch.einsum("bchw,tc->bthw", x, text)


@MODELS.register_module()
class ASPPV2Head(BaseDecodeHead):
    """DeepLabv2's head: the sum of dilated convolutions, followed by ``cls_seg``.

    Args:
        dilations: d.
        **options: see ``BaseDecodeHead``.
    """

    def __init__(self, dilations: Sequence[int] = (6, 12, 18, 24), **options):
        super().__init__(**options)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(self.in_channels, self.channels, 3, padding=d, dilation=d) for d in dilations
        )

    def forward(self, inputs):
        x = self._transform_inputs(inputs)
        return self.cls_seg(sum(convolution(x) for convolution in self.convolutions))


@MODELS.register_module()
def MaskCLIPPlusHead(
    head: dict,
    vocabulary,
    weights: str | None = None,
    templates: str | Sequence[str] = "maskclip_85",
    background: bool = False,
    arch: str | None = None,
    quick_gelu: bool | None = None,
) -> BaseDecodeHead:
    """The decode head of config ``head`` with ``FrozenWords`` in place of its ``conv_seg``.

    Args:
        head: config of a head; its ``channels`` default to the dimension of the joint space.
        vocabulary, weights, templates, background, arch, quick_gelu: see ``FrozenWords``; the teacher's.

    Raises:
        ValueError: see ``head_for`` and ``FrozenWords``; a head with other ``channels``.
    """
    words = FrozenWords(Vocabulary.parse(vocabulary), weights, templates, arch, quick_gelu, background=background)
    width = words.text.shape[1]
    built = head_for({"channels": width, **head}, vocabulary)
    if built.conv_seg.in_channels != width:
        raise ValueError(
            f"{head['type']} ends in {built.conv_seg.in_channels} channels and the words have {width}: leave channels "
            "out, or take OpenVocabHead, which learns a projection."
        )
    built.conv_seg = words
    return built
