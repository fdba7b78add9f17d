"""The region heads of F-VLM and F-ViT in MMDetection (equations in ``detectors.fvit``).

e_r  RoIAlign on the levels → convolutions and layers → the last feature before the classifier, after its ReLU, of size
E L    cross entropy of T cos(e_r, t) over classes and background, with a configurable weight for background regions
boxes: four class-agnostic numbers
"""

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.structures.bbox import bbox2roi
from torch import Tensor, nn

from ovseg.registry import MODELS
from ovseg.score import geometric_ensemble
from ovseg.score.text_classifier import WordScores

from .frozen_tower import FrozenTower
from .proposals import tensor
from .regionclip_head import select_boxes


@MODELS.register_module()
class FViTBBoxHead(ConvFCBBoxHead):
    """Convolutions and layers whose last feature is compared with text; published: 4 and 2 shared, then one each.

    Args:
        embed_dim: E.
        background: ``zero``, ``learned`` or ``words``.
        background_weight: weight of background regions in the loss.
        temperature: initial T.
        **parts: see ``ConvFCBBoxHead``.

    Raises:
        ValueError: no separate layer for the classifier.
    """

    def __init__(
        self, embed_dim: int, background: str = "words", background_weight=1.0, temperature: float = 50.0, **parts
    ):
        layers = dict(num_shared_convs=4, num_shared_fcs=2, num_cls_fcs=1, num_reg_fcs=1)
        super().__init__(**(layers | dict(reg_class_agnostic=True) | parts))
        if not self.num_cls_fcs:
            raise ValueError("the region embedding is the last of num_cls_fcs layers; give it at least 1.")
        self.cls_fcs[-1] = nn.Linear(self.cls_fcs[-1].in_features, embed_dim)
        self.fc_cls = WordScores(embed_dim, temperature, background=background)
        self.background_weight = background_weight

    def loss(self, cls_score, bbox_pred, rois, labels, label_weights, bbox_targets, bbox_weights, **options) -> dict:
        label_weights = torch.where(labels == self.num_classes, self.background_weight, 1.0) * label_weights
        return super().loss(cls_score, bbox_pred, rois, labels, label_weights, bbox_targets, bbox_weights, **options)


@MODELS.register_module()
class FViTRoIHead(StandardRoIHead):
    """``StandardRoIHead`` that also uses the frozen tower, whose map V follows the levels.

    Attributes:
        base: (K + 1,) boolean, the trained classes and background; set by the detector.
        mixture: whether the tower is used (``vlm``), ``vlm_temperature``, ``alpha`` and ``beta``.
    """

    def mix(self, backbone: FrozenTower, vlm: bool, temperature: float, alpha: float, beta: float):
        """Set what ``predict`` needs besides the heads."""
        self._backbone = [backbone]  # in a list: it is the detector's
        self.base: Tensor | None = None
        self.mixture = dict(vlm=vlm, vlm_temperature=temperature, alpha=alpha, beta=beta)

    def scores(self, logits: Tensor, seen: Tensor, proposals: list[Tensor], image_size: tuple[int, int]) -> Tensor:
        """(R, K + 1) of regions, from logits and V; boxes in pixels of the padded image."""
        p, mixture = logits.softmax(-1), self.mixture
        if not mixture["vlm"]:
            return p
        regions = self._backbone[0].regions(seen, proposals, image_size)
        q = self.bbox_head.fc_cls(regions, mixture["vlm_temperature"]).softmax(-1)
        return geometric_ensemble(p, q, self.base, mixture["alpha"], mixture["beta"])

    def predict_bbox(self, x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale: bool = False):
        """Boxes of each image; no second softmax is applied to the scores."""
        proposals = [tensor(each.bboxes) for each in rpn_results_list]
        outputs = self._bbox_forward(x, bbox2roi(proposals))
        scores = self.scores(outputs["cls_score"], x[-1], proposals, batch_img_metas[0]["batch_input_shape"])
        counts = [len(each) for each in proposals]
        return [
            select_boxes(self.bbox_head.bbox_coder.decode(boxes, deltas), each, meta, rcnn_test_cfg, rescale)
            for boxes, deltas, each, meta in zip(
                proposals, outputs["bbox_pred"].split(counts), scores.split(counts), batch_img_metas, strict=True
            )
        ]
