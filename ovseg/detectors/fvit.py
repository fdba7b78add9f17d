"""F-VLM: Open-Vocabulary Object Detection upon Frozen Vision and Language Models (Kuo et al., ICLR 2023), and its form
for Vision Transformers, F-ViT (in CLIPSelf, Wu et al., ICLR 2024).

levels, V = frozen tower (``detectors.frozen_tower``)  →  FPN  →  RPN  →  RoI heads (``detectors.fvit_head``)
p = softmax(T cos(e_r, t)),  q = softmax(T_v cos(V_r, t)),  over classes and background
score = p^(1−α) q^α for base classes, p^(1−β) q^β for all others; not renormalized

Boxes come from parts trained on base classes; their classes also from the frozen tower, which still knows the full
vocabulary.
"""

import copy
from collections.abc import Sequence

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from torch import Tensor

from ovseg.registry import MODELS
from ovseg.score.text_classifier import background_policy
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import Tower, load_tower
from ovseg.towers.base import IMAGENET

from .frozen_tower import FrozenTower
from .fvit_parts import merged, published_parts
from .runtime_classes import RuntimeClasses

STATISTICS = ("tower", "imagenet")


@MODELS.register_module()
class FViT(RuntimeClasses, BaseDetector):
    """Faster or Mask R-CNN on a frozen tower.

    Args:
        vocabulary: classes of the training labels, anything ``Vocabulary.parse`` takes; ``set_classes`` replaces them
            in prediction.
        weights: see ``ovseg.towers.weights``, or a tower; None is the embedded demo model. A ViT makes it F-ViT, a
            ResNet F-VLM.
        unseen: names (or a file of them) hidden from training: instances are dropped, logits are −∞.
        masks: Mask R-CNN.
        backbone: settings of ``FrozenTower``.
        background: ``zero`` (a logit of 0), ``learned`` (a vector), or names of background.
        background_weight: weight of background in the classification loss; published: 0.6 for COCO, 0.9 for LVIS.
        temperature: initial T; it is learned.
        vlm: also use the tower's scores; False uses p alone.
        vlm_temperature: T_v; None: the tower's own.
        alpha, beta: α, β.
        neck, rpn_head, roi_head, train_cfg, test_cfg: changes to ``fvit_parts.published_parts``,
            at any depth.
        statistics: normalization of images, that of the ``tower`` or ``imagenet``, with which F-ViT's released
            weights were trained whatever the tower.
        templates: prompt templates.
        data_preprocessor: changes to MMDetection's ``DetDataPreprocessor`` with that normalization.
        arch, quick_gelu: for weight files that do not record them.

    Raises:
        ValueError: unsuitable names or weights, or numbers out of range.
    """

    name = "fvit"
    loader = "TrainedDetector"
    takes_boxes = True

    def __init__(
        self,
        vocabulary,
        weights: str | Tower | None = None,
        unseen: Sequence[str] | str = (),
        masks: bool = False,
        backbone: dict | None = None,
        background: str | Sequence[str] = "background",
        background_weight: float = 0.6,
        temperature: float = 50.0,
        vlm: bool = True,
        vlm_temperature: float | None = 75.0,
        alpha: float = 0.1,
        beta: float = 0.8,
        neck: dict | None = None,
        rpn_head: dict | None = None,
        roi_head: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        statistics: str = "tower",
        templates="imagenet_80",
        data_preprocessor: dict | None = None,
        arch: str | None = None,
        quick_gelu: bool | None = None,
    ):
        tower = weights if isinstance(weights, Tower) else load_tower(weights, arch=arch, quick_gelu=quick_gelu)
        policy, words = background_policy(background)
        if statistics not in STATISTICS or not (0 <= alpha <= 1 and 0 <= beta <= 1) or policy is None:
            raise ValueError(
                f"FViT: statistics are {' or '.join(STATISTICS)}, alpha and beta from 0 to 1, background is 'zero', "
                f"'learned' or words; got {statistics!r}, {alpha}, {beta}, {background!r}."
            )
        levels = FrozenTower(tower, **(backbone or {}))
        preprocess = IMAGENET if statistics == "imagenet" else tower.preprocess
        mean, std = ([255 * value for value in values] for values in (preprocess.mean, preprocess.std))
        divisor = tower.stride if levels.has_stages else 2 * tower.stride
        reader = dict(type="mmdet.DetDataPreprocessor", mean=mean, std=std, bgr_to_rgb=True, pad_mask=masks)
        super().__init__(merged(reader | dict(pad_size_divisor=divisor), data_preprocessor or {}))
        self.open_words(tower, vocabulary, unseen, templates)
        self._background = Vocabulary.parse(list(words)) if words else None
        self._notes = dict(background=background, statistics=statistics, templates=str(templates))
        if not levels.has_stages:
            self._notes |= dict(dense=type(levels.extractor).__name__, window=levels.window)
        parts = published_parts(
            len(self.train_vocabulary), tower.embed_dim, levels.channels, levels.strides, masks
        )  # fmt: skip
        changes = dict(neck=neck, rpn_head=rpn_head, roi_head=roi_head, train_cfg=train_cfg, test_cfg=test_cfg)
        parts = merged(parts, {name: change for name, change in changes.items() if change is not None})
        head = dict(background=policy, background_weight=background_weight, temperature=temperature)
        self._build(levels, ConfigDict(merged(parts, dict(roi_head=dict(bbox_head=head)))))
        temperature = tower.logit_scale if vlm_temperature is None else vlm_temperature
        self.roi_head.mix(levels, vlm, temperature, alpha, beta)

    def _build(self, levels: FrozenTower, parts: ConfigDict):
        self.backbone, train, test = levels, parts.train_cfg, parts.test_cfg
        self.train_cfg, self.test_cfg = train, test
        with MMDET_MODELS.switch_scope_and_registry("mmdet"):
            self.neck = MMDET_MODELS.build(parts.neck)
            rpn = dict(parts.rpn_head, num_classes=1, train_cfg=train.rpn, test_cfg=test.rpn)
            self.rpn_head = MMDET_MODELS.build(rpn)
            self.roi_head = MMDET_MODELS.build(dict(parts.roi_head, train_cfg=train.rcnn, test_cfg=test.rcnn))

    @property
    def tower(self) -> Tower:
        return self.backbone.tower

    @property
    def settings(self) -> dict:
        """The settings that affect predictions besides weights and classes."""
        regions = self.test_cfg.rcnn
        limits = dict(score_thr=regions.score_thr, nms=regions.nms.iou_threshold, max_per_img=regions.max_per_img)
        return self._notes | self.roi_head.mixture | dict(proposals=self.test_cfg.rpn.max_per_img) | limits

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Levels of the neck, followed by V."""
        levels, seen = self.backbone(batch_inputs)
        return (*self.neck(levels), seen)

    def loss(self, batch_inputs: Tensor, batch_data_samples) -> dict[str, Tensor]:
        samples = self.without_hidden(batch_data_samples)
        x = self.extract_feat(batch_inputs)[:-1]
        without_labels = copy.deepcopy(samples)
        for sample in without_labels:
            sample.gt_instances.labels = torch.zeros_like(sample.gt_instances.labels)
        losses, proposals = self.rpn_head.loss_and_predict(x, without_labels, self.train_cfg.rpn_proposal)
        self._read(self.train_vocabulary, self.hidden)
        losses = {name if "rpn" in name else f"rpn_{name}": value for name, value in losses.items()}
        return losses | self.roi_head.loss(x, proposals, samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples, rescale: bool = True, features=None):
        """``pred_instances`` of each sample: ``bboxes``, ``scores``, ``labels`` (and ``masks``).

        Samples with ``proposals`` (``bboxes`` in pixels of the input) keep those.  ``features`` are what
        ``extract_feat`` gave for the images, where it has run.
        """
        x = self.extract_feat(batch_inputs) if features is None else features
        if all("proposals" in sample for sample in batch_data_samples):
            proposals = [sample.proposals for sample in batch_data_samples]
        else:
            proposals = self.rpn_head.predict(x[:-1], batch_data_samples, rescale=False)
        self._read(self.vocabulary)
        predictions = self.roi_head.predict(x, proposals, batch_data_samples, rescale=rescale)
        for sample in batch_data_samples:
            sample.set_metainfo({"provenance": self.provenance})
        return self.add_pred_to_datasample(batch_data_samples, predictions)

    def _forward(self, batch_inputs: Tensor, batch_data_samples=None):
        return self.extract_feat(batch_inputs)

    def _read(self, vocabulary: Vocabulary, hidden: Tensor | None = None):
        """Set the text embeddings of the region head; base are the classes it was trained on, and background."""
        background = None if self._background is None else self.embeddings(self._background)[0]
        self.roi_head.bbox_head.fc_cls.set_words(
            *self.embeddings(vocabulary), len(vocabulary), hidden=hidden, background=background
        )
        known = set(self.train_vocabulary.names) - set(self.unseen)
        self.roi_head.base = torch.tensor([*(name in known for name in vocabulary.names), True])
