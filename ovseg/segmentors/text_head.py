"""Text embeddings as the last layer of any decode head, which makes a closed-set head open-vocabulary.

logit_c = exp(θ)·max over the prompts t of class c of ⟨W x/‖W x‖, t⟩,   exp(θ) learned, at most 100, initially 1/0.07

    decode_head=dict(type="ovseg.OpenVocabHead", vocabulary="ade150", head=dict(type="UPerHead", in_channels=…, …))
    set_classes(model, ["cat", "dog", "sofa"])          # other classes for a trained model
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from ovseg.argmax import max_over_synonyms
from ovseg.registry import MODELS
from ovseg.score.text_classifier import NamedWords
from ovseg.text.vocabulary import Vocabulary


class TextClassifier(NamedWords):
    """A 1×1 convolution into the joint space, followed by cosines with the text embeddings of a vocabulary.

    Checkpoints contain the convolution and the temperature but no text embeddings, which come from the vocabulary.

    Args:
        channels: C of the features.
        vocabulary, weights, templates, arch, quick_gelu: see ``NamedWords``.

    Raises:
        ValueError: weights without a text tower, or a class without names.
    """

    def __init__(
        self,
        channels: int,
        vocabulary,
        weights: str | None = None,
        templates: str | Sequence[str] = "imagenet_80",
        arch: str | None = None,
        quick_gelu: bool | None = None,
    ):
        super().__init__(vocabulary, weights, templates, arch=arch, quick_gelu=quick_gelu)
        self.project = nn.Conv2d(channels, self.text.shape[1], 1)

    def words(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, T, h, w) logits of the prompts."""
        unit = F.normalize(self.project(x).float(), dim=1)
        return self.scale * torch.einsum("bchw,tc->bthw", unit, self.text)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) → (B, K, h, w) logits."""
        return max_over_synonyms(self.words(x), self.prompt_to_class, len(self.vocabulary))


def head_for(head: dict, vocabulary) -> BaseDecodeHead:
    """The decode head of config ``head`` for the classes of a vocabulary, ending in a replaceable ``conv_seg``.

    Raises:
        ValueError: a head that does not end in ``conv_seg``, or whose ``num_classes`` does not match.
    """
    classes = len(Vocabulary.parse(vocabulary))
    if head.get("num_classes", classes) != classes:
        raise ValueError(
            f"the vocabulary has {classes} classes and the head num_classes={head['num_classes']}; leave that out."
        )
    kind = head["type"]
    scoped = kind if not isinstance(kind, str) or "." in kind else f"mmseg.{kind}"
    built = MMSEG_MODELS.build(dict(head, type=scoped, num_classes=classes, out_channels=classes, _scope_="mmseg"))
    if not isinstance(getattr(built, "conv_seg", None), nn.Conv2d):
        raise ValueError(
            f"{kind} does not end in a layer conv_seg that words could replace. Heads that classify pixels do: "
            "UPerHead, FPNHead, SegformerHead, FCNHead, PSPHead, DepthwiseSeparableASPPHead and others."
        )
    return built


@MODELS.register_module()
def OpenVocabHead(
    head: dict,
    vocabulary,
    weights: str | None = None,
    templates: str | Sequence[str] = "imagenet_80",
    arch: str | None = None,
    quick_gelu: bool | None = None,
) -> BaseDecodeHead:
    """The decode head of config ``head`` with a ``TextClassifier`` in place of its ``conv_seg``.

    The result is a head of exactly that class (``UPerHead``, ``FPNHead``, ``SegformerHead``, ``FCNHead``, …), with its
    losses, parameter names and ``predict``; only the last layer differs.

    Args:
        head: config of a head of MMSegmentation; ``num_classes`` is taken from the vocabulary.
        vocabulary, weights, templates, arch, quick_gelu: see ``TextClassifier``; the weights are those of the backbone.

    Raises:
        ValueError: a head that does not end in ``conv_seg``, or whose ``num_classes`` does not match.
    """
    built = head_for(head, vocabulary)
    built.conv_seg = TextClassifier(built.conv_seg.in_channels, vocabulary, weights, templates, arch, quick_gelu)
    return built


def set_classes(model: nn.Module, vocabulary):
    """Set new classes in all text classifiers of a segmentor (or of a head), and update their number and names.

    Raises:
        ValueError: the model contains no ``TextClassifier``.
    """
    heads = [m for m in model.modules() if isinstance(getattr(m, "conv_seg", None), TextClassifier)]
    if not heads:
        raise ValueError(
            f"{type(model).__name__} classifies with learned vectors, not with words. Train it with "
            "decode_head=dict(type='ovseg.OpenVocabHead', vocabulary=…, head=dict(…))."
        )
    vocabulary = Vocabulary.parse(vocabulary)
    for head in heads:
        head.conv_seg.set_classes(vocabulary)
        head.num_classes = head.out_channels = len(vocabulary)
    if hasattr(model, "decode_head"):
        model.num_classes = model.out_channels = len(vocabulary)
        palette = [list(color) for color in vocabulary.colors]
        model.dataset_meta = dict(classes=vocabulary.names, palette=palette)
