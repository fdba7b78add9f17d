"""Words as the last classification layer of any head of MMDetection: a closed-set detector becomes open-vocabulary.

logit_k = exp(θ)·max over the words t of class k of cos(W x, t)  (+ b in heads with a sigmoid);   background: see
``score.text_classifier``;   W is as the layer it replaces, but E wide (of anchors: each anchor)

    bbox_head=dict(type="ovseg.OpenVocabDetHead", vocabulary=[…], head=dict(type="RetinaHead", in_channels=256, …))
    set_classes(model, ["cat", "dog", "sofa"])          # other words for a trained detector

Softmax heads have a column for background, sigmoid heads have none.  Boxes must not depend on the class.
"""

import math
from collections.abc import Sequence

import torch
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from ovseg.registry import MODELS
from ovseg.score.text_classifier import NamedWords
from ovseg.text.vocabulary import Vocabulary, unseen_names

LAYERS = ("fc_cls", "retina_cls", "conv_cls", "atss_cls", "cls_branches")
PRIOR = 0.01  # probability of an object that sigmoid heads begin with


class TextLayer(NamedWords):
    """Stands for a linear layer or a convolution that ends in class scores.

    Checkpoints hold the projection, the temperature, b and a learned background, not the words.

    Args:
        layer: the layer that it replaces.
        columns: how many scores that gives for each anchor.
        vocabulary, **words: see ``NamedWords``.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, columns: int, vocabulary, **words):
        super().__init__(vocabulary, **words)
        width = self.text.shape[1]
        if isinstance(layer, nn.Linear):
            self.project = nn.Linear(layer.in_features, width, bias=False)
        else:
            anchors = layer.out_channels // columns
            shape = dict(stride=layer.stride, padding=layer.padding, dilation=layer.dilation)
            self.project = nn.Conv2d(layer.in_channels, anchors * width, layer.kernel_size, bias=False, **shape)
        bias = None if self.policy else nn.Parameter(torch.tensor([math.log(PRIOR / (1 - PRIOR))]))
        self.register_parameter("bias", bias)

    @property
    def out_features(self) -> int:
        return len(self.vocabulary) + (self.policy is not None)

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, columns), or (B, C, h, w) → (B, anchors · columns, h, w)."""
        x = self.project(x)
        if isinstance(self.project, nn.Linear):
            return self._scores(x)
        x = x.unflatten(1, (-1, self.text.shape[1])).permute(0, 3, 4, 1, 2)  # (B, h, w, anchors, E)
        return self._scores(x).flatten(3).permute(0, 3, 1, 2).contiguous()

    def _scores(self, x: Tensor) -> Tensor:
        logits = super().forward(x.flatten(0, -2))
        logits = logits if self.bias is None else logits + self.bias
        return logits.view(*x.shape[:-1], -1)


class WithoutUnseen:
    """A mix-in before a dense or DETR-like head: instances of unseen classes are left out of its truth."""

    def loss(self, *inputs, **options):
        hidden = _hidden(self)
        inputs = [_without(each, hidden) for each in inputs]
        return super().loss(*inputs, **{name: _without(each, hidden) for name, each in options.items()})


class WithoutUnseenRegions:
    """A mix-in before a ``BBoxHead``: regions of unseen classes count for nothing."""

    def loss(self, cls_score, bbox_pred, rois, labels, label_weights, bbox_targets, bbox_weights, **options) -> dict:
        gone = nn.functional.pad(_hidden(self), (0, 1))[labels]
        labels = labels.masked_fill(gone, self.num_classes)
        label_weights = label_weights.masked_fill(gone, 0)
        return super().loss(cls_score, bbox_pred, rois, labels, label_weights, bbox_targets, bbox_weights, **options)


def _hidden(head: nn.Module) -> Tensor:
    """(K,) boolean: the classes that training must not see."""
    layer = text_layers(head)[0]
    return layer.prompt_to_class.new_zeros(len(layer.vocabulary)).bool() if layer.hidden is None else layer.hidden


def _without(inputs, hidden: Tensor):
    if isinstance(inputs, (list, tuple)) and inputs and isinstance(inputs[0], DetDataSample):
        for sample in inputs:
            truth = sample.gt_instances
            if len(truth) and hidden[truth.labels].any():
                sample.gt_instances = truth[~hidden[truth.labels]]
    return inputs


def text_layers(head: nn.Module) -> list[TextLayer]:
    """The layers of a head that score words, each once."""
    layers = [getattr(head, name, None) for name in LAYERS]
    layers = [layer for each in layers for layer in (each if isinstance(each, nn.ModuleList) else [each])]
    return list(dict.fromkeys(layer for layer in layers if isinstance(layer, TextLayer)))


def head_for(head: dict, vocabulary) -> nn.Module:
    """The head of config ``head`` for the classes of a vocabulary.

    Raises:
        ValueError: another ``num_classes``, boxes that depend on the class, or a head that does not end in one of
            ``LAYERS``.
    """
    classes = len(Vocabulary.parse(vocabulary))
    if head.get("num_classes", classes) != classes:
        raise ValueError(
            f"the vocabulary has {classes} classes and the head num_classes={head['num_classes']}; leave that out."
        )
    kind = head["type"]
    scoped = kind if not isinstance(kind, str) or "." in kind else f"mmdet.{kind}"
    parent = MMDET_MODELS.get(scoped) if isinstance(scoped, str) else scoped
    if isinstance(parent, type) and issubclass(parent, BBoxHead):
        if not head.get("reg_class_agnostic", True):
            raise ValueError("a box head for any words moves all boxes alike; leave reg_class_agnostic=False out.")
        head = dict(head, reg_class_agnostic=True)
    with MMDET_MODELS.switch_scope_and_registry("mmdet"):
        built = MMDET_MODELS.build(dict(head, type=scoped, num_classes=classes))
    layers = [getattr(built, name, None) for name in LAYERS]
    if not any(isinstance(layer, (nn.Linear, nn.Conv2d, nn.ModuleList)) for layer in layers):
        raise ValueError(
            f"{kind} does not end in a layer that words could replace: {', '.join(LAYERS[:-1])} or {LAYERS[-1]}. Heads "
            "that do: Shared2FCBBoxHead and other box heads, RetinaHead, FCOSHead, ATSSHead, DETRHead, "
            "DeformableDETRHead, DINOHead."
        )
    return built


@MODELS.register_module()
def OpenVocabDetHead(
    head: dict,
    vocabulary,
    weights: str | None = None,
    templates: str | Sequence[str] = "imagenet_80",
    background: str | Sequence[str] | None = None,
    unseen: str | Sequence[str] = (),
    temperature: float = 1 / 0.07,
    learned: bool = True,
    arch: str | None = None,
    quick_gelu: bool | None = None,
    **settings,
) -> nn.Module:
    """The head of config ``head`` with a ``TextLayer`` in place of its classification layer.

    What is built is a head of that very class, with its losses, parameter names and ``predict``.

    Args:
        head: config of a box head, a dense head or a DETR-like head of MMDetection; ``num_classes`` is taken from the
            vocabulary.
        vocabulary, weights, templates, arch, quick_gelu: see ``NamedWords``.
        background: of softmax heads: ``zero``, ``learned`` (None: so), or words; sigmoid heads have none.
        unseen: names that training must not see (``text.vocabulary.unseen_names``): their logits are −∞, their
            instances are left out. A first stage before a box head still finds them: take a dataset without them
            (``base_only=True``).
        temperature: exp(θ) at first; ``learned``: whether it trains.
        **settings: what the detector gives its head, such as ``train_cfg`` and ``test_cfg``.

    Raises:
        ValueError: see ``head_for``; a background for a sigmoid head; unseen names that there are not.
    """
    built = head_for(dict(head) | settings, vocabulary)
    columns = getattr(built, "cls_out_channels", built.num_classes + 1)
    softmax = columns == built.num_classes + 1
    if background is not None and not softmax:
        raise ValueError(
            f"{head['type']} ends in a sigmoid and has no column for background; leave background={background!r} out."
        )
    unseen = unseen_names(Vocabulary.parse(vocabulary), unseen)
    words = dict(weights=weights, templates=templates, unseen=unseen, arch=arch, quick_gelu=quick_gelu)
    words |= dict(scale=temperature, learned=learned, background=(background or "learned") if softmax else None)
    replaced = {}

    def text_layer(layer):
        if id(layer) not in replaced:  # some heads read all their levels with the same layer
            replaced[id(layer)] = TextLayer(layer, columns, vocabulary, **words)
        return replaced[id(layer)]

    for name in LAYERS:
        layer = getattr(built, name, None)
        if isinstance(layer, nn.ModuleList):
            setattr(built, name, nn.ModuleList(text_layer(each) for each in layer))
        elif layer is not None:
            setattr(built, name, text_layer(layer))
    if unseen:
        kind = type(built)
        mix_in = WithoutUnseenRegions if isinstance(built, BBoxHead) else WithoutUnseen
        built.__class__ = type(kind.__name__, (mix_in, kind), {"__module__": kind.__module__})
    return built


def set_classes(model: nn.Module, vocabulary):
    """Give all text layers of a detector (or of a head) other classes, and the heads their number.

    Raises:
        ValueError: the model holds no ``TextLayer``, or masks that depend on the class.
    """
    heads = {head: text_layers(head) for head in model.modules()}
    heads = {head: layers for head, layers in heads.items() if layers}
    if not heads:
        raise ValueError(
            f"{type(model).__name__} classifies with learned vectors, not with words. Train it with "
            "bbox_head=dict(type='ovseg.OpenVocabDetHead', vocabulary=…, head=dict(…))."
        )
    if not all(getattr(module, "class_agnostic", True) for module in model.modules()):
        raise ValueError("masks of other classes need a mask head with class_agnostic=True; train it so.")
    vocabulary = Vocabulary.parse(vocabulary)
    for head, layers in heads.items():
        for layer in layers:
            layer.set_classes(vocabulary)
        head.num_classes = len(vocabulary)
        if hasattr(head, "cls_out_channels"):
            head.cls_out_channels = layers[0].out_features
    model.dataset_meta = dict(classes=vocabulary.names, palette=[tuple(color) for color in vocabulary.colors])
