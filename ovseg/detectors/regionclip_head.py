"""The region head of RegionCLIP (Zhong et al., CVPR 2022) in MMDetection: layer4 and attention pool per region.

The classifier has no parameters: text, temperature and a zero vector for background.  Boxes are four class-agnostic
numbers, linear in the pooled feature before it is normalized; masks, where wanted, one deconvolution on layer4's maps.
"""

import torch
from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor

from ovseg.regions.regionclip import region_features, region_maps, with_objectness
from ovseg.regions.regionclip_losses import region_cross_entropy
from ovseg.registry import MODELS
from ovseg.score.text_classifier import WordScores
from ovseg.towers import Tower

from .proposals import objectness_logits


def box_coder(weights=(10.0, 10.0, 5.0, 5.0)) -> DeltaXYWHBBoxCoder:
    """(dx, dy, dw, dh)·weights between boxes; growth is clamped at log(1000/16)."""
    return DeltaXYWHBBoxCoder((0.0,) * 4, tuple(1 / w for w in weights), wh_ratio_clip=16 / 1000)


def split_rois(rois: Tensor, pictures: int) -> list[Tensor]:
    """Split rois (R, 5), ordered by image, into boxes (R_b, 4) of each image."""
    return [rois[rois[:, 0] == index, 1:] for index in range(pictures)]


def select_boxes(boxes: Tensor, scores: Tensor, meta: dict, cfg, rescale: bool) -> InstanceData:
    """NMS per class of boxes (R, 4) in pixels of the input and scores (R, K + 1), whose last column is ignored.

    Boxes are cut to the image; those without area, and rows with a number that is not finite, are dropped.
    """
    height, width = meta["img_shape"][:2]
    sound = boxes.isfinite().all(1) & scores.isfinite().all(1)
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))
    sound &= (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, scores = boxes[sound], scores[sound]
    if rescale:
        boxes = boxes / boxes.new_tensor([*meta["scale_factor"]] * 2)
    selected, labels = multiclass_nms(boxes, scores, cfg["score_thr"], dict(cfg["nms"]), cfg["max_per_img"])
    return InstanceData(bboxes=selected[:, :4], scores=selected[:, 4], labels=labels)


@MODELS.register_module()
class RegionCLIPBBoxHead(BBoxHead):
    """Box regression, and the loss on external logits.

    Args:
        background: weight of background regions in the loss.
        gamma: exponent of its focal scaling, 0 for none.
        **parts: see ``BBoxHead``.
    """

    def __init__(self, background: float = 1.0, gamma: float = 0.0, **parts):
        super().__init__(with_cls=False, reg_class_agnostic=True, roi_feat_size=1, **parts)
        self.background, self.gamma = background, gamma
        self.bbox_coder = box_coder()

    def loss(self, cls_score, bbox_pred, rois, labels, label_weights, bbox_targets, bbox_weights, **options) -> dict:
        losses = super().loss(None, bbox_pred, rois, labels, label_weights, bbox_targets, bbox_weights, **options)
        losses["loss_cls"] = region_cross_entropy(cls_score, labels, self.background, self.gamma)
        return losses


@MODELS.register_module()
class RegionCLIPRoIHead(StandardRoIHead):
    """Regions of the third stage, classified by text.

    Args:
        temperature: τ.
        deltas: move the boxes in prediction; off in zero-shot use and with ground-truth boxes.
        objectness: ``probability``, ``logit`` or None: how the proposals' scores enter, see ``with_objectness``.
        sampling_ratio: of RoIAlign.
        **parts: see ``StandardRoIHead``; extractors are not used, ``bbox_head`` holds arguments of
            ``RegionCLIPBBoxHead``.  Parts are looked up in the default scope, which is to be mmdet.

    Attributes:
        classifier: ``WordScores`` with the zero vector as background; the detector sets its text embeddings.
    """

    def __init__(self, temperature: float = 0.01, deltas=True, objectness=None, sampling_ratio: int = 0, **parts):
        super().__init__(**parts)
        self.deltas, self.objectness, self.sampling_ratio = deltas, objectness, sampling_ratio
        self.temperature = temperature
        self.classifier = WordScores(self.bbox_head.in_channels, learned=False, background="zero")
        self._tower: list[Tower] = []  # in a list: its parameters belong to the detector

    def init_bbox_head(self, bbox_roi_extractor, bbox_head):
        self.bbox_head = RegionCLIPBBoxHead(**bbox_head)

    def init_mask_head(self, mask_roi_extractor, mask_head):
        self.share_roi_extractor = True
        self.mask_head = MMDET_MODELS.build(mask_head)

    def attach(self, tower: Tower):
        self._tower[:] = [tower]

    def _bbox_forward(self, x, rois: Tensor) -> dict:
        boxes = split_rois(rois, len(x[-1]))
        outputs = region_features(self._tower[0], x[-1], boxes, self.sampling_ratio, with_maps=self.with_mask)
        features, maps = outputs if self.with_mask else (outputs, None)
        scores = self.classifier(features, 1 / self.temperature)
        deltas = self.bbox_head.fc_reg(features)
        return dict(cls_score=scores, bbox_pred=deltas, bbox_feats=maps, features=features)

    def _mask_forward(self, x, rois=None, pos_inds=None, bbox_feats=None) -> dict:
        if rois is None:
            maps = bbox_feats[pos_inds.bool()]
        else:
            tower, boxes = self._tower[0], split_rois(rois, len(x[-1]))
            maps = tower.visual.layer4(region_maps(tower, x[-1], boxes, self.sampling_ratio))
        return dict(mask_preds=self.mask_head(maps), mask_feats=maps)

    def predict_bbox(self, x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale: bool = False):
        """Boxes of each image; rows with a score that is not finite are dropped before NMS."""
        proposals = [each.bboxes for each in rpn_results_list]
        outputs = self._bbox_forward(x, bbox2roi(proposals))
        counts = [len(each) for each in proposals]
        parts = zip(
            rpn_results_list, outputs["cls_score"].split(counts), outputs["bbox_pred"].split(counts), batch_img_metas,
            strict=True,
        )  # fmt: skip
        return [self._boxes(*part, rcnn_test_cfg, rescale) for part in parts]

    def _boxes(self, proposals: InstanceData, logits: Tensor, deltas: Tensor, meta, cfg, rescale) -> InstanceData:
        probabilities = logits.softmax(-1)
        if self.objectness is not None:
            probabilities = with_objectness(probabilities, objectness_logits(proposals.scores), self.objectness)
        boxes = proposals.bboxes
        if self.deltas:
            boxes = self.bbox_head.bbox_coder.decode(boxes, deltas)
        return select_boxes(boxes, probabilities, meta, cfg, rescale)
