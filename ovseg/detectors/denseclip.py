"""DenseCLIP's detectors (Rao et al., CVPR 2022): the score map in RetinaNet and Mask R-CNN.

t', s as in ``segmentors.denseclip``;   s/τ beside the channels of the coarsest stage, before the FPN,   τ = 0.07
L  = L_detector + BCE(σ(s/τ), box),   s/τ enlarged to stride 4; box (K, h, w) is 1 where a box of class k lies; the mean
     over classes and over the cells that lie in any box

Closed vocabulary: the classes are those of the training labels.  FPN and heads are MMDetection's.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.detectors import MaskRCNN, RetinaNet
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from torch import Tensor

from ovseg.registry import MODELS
from ovseg.segmentors.denseclip import Prompting

CELL = 4  # pixels per cell of the auxiliary loss


def box_targets(
    boxes: Sequence[Tensor], labels: Sequence[Tensor], classes: int, grid: tuple[int, int], cell: int = CELL
) -> Tensor:
    """(B, K, h, w) with ones where a box of the class lies and zeros elsewhere.

    Args:
        boxes: B tensors (R_b, 4): x1, y1, x2, y2 in pixels; edges are rounded down to cells, so that boxes within one
            cell are dropped.
        labels: B tensors (R_b,).
        classes, grid: K and (h, w).
        cell: side of a cell in pixels.
    """
    device = boxes[0].device if len(boxes) else None
    targets = torch.zeros(len(boxes), classes, *grid, device=device)
    for target, some, theirs in zip(targets, boxes, labels, strict=True):
        corners = (some / cell).floor().long().clamp(min=0).tolist()
        for (left, top, right, bottom), label in zip(corners, theirs.tolist(), strict=True):
            target[label, top:bottom, left:right] = 1
    return targets


def box_score_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of logits (B, K, h', w'), enlarged to targets (B, K, h, w), over cells in any box.

    Zero, with zero gradients, if no image has a box.
    """
    logits = F.interpolate(logits, targets.shape[-2:], mode="bilinear", align_corners=False)
    inside = targets.amax(1, keepdim=True).expand_as(targets)
    total = F.binary_cross_entropy_with_logits(logits.float(), targets, weight=inside, reduction="sum")
    return total / inside.sum().clamp(min=1)


class PromptedDetector(Prompting):
    """A mix-in for detectors of MMDetection.

    The text tower is frozen (its learning rate is 0 in the published recipe) unless a preset of the backbone's
    ``tuning`` covers the text side.

    Args:
        backbone: arguments of a ``CLIPBackbone`` of whole CLIP weights; [global, map] are asked of it.
        vocabulary: the classes, anything ``Vocabulary.parse`` takes; each is encoded by its name.
        neck: any neck; level ``score_level`` of its ``in_channels`` has K channels more than the backbone's.
        context_decoder, class_tokens, context_tokens, too_long, score_level, gamma, tau: see ``segmentors.DenseCLIP``.
        score_weight: weight of the loss on s.
        train_cfg, test_cfg: see MMDetection's detector.
        **parts: heads and other arguments of the detector.

    Raises:
        ValueError: weights without a text tower, class names that are too long, or channels and class counts that do
            not match.
    """

    def __init__(
        self,
        backbone: dict,
        vocabulary,
        neck: dict | None = None,
        context_decoder: dict | None = None,
        class_tokens: int = 5,
        context_tokens: int = 8,
        too_long: str = "raise",
        score_level: int | None = None,
        gamma: float = 1e-4,
        tau: float = 0.07,
        score_weight: float = 1.0,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        **parts,
    ):
        own = dict(joint=True, positions="bilinear", class_token_twice=True)
        with MMDET_MODELS.switch_scope_and_registry("mmdet"):  # heads and necks are MMDetection's in any scope
            super().__init__(
                backbone=own | dict(backbone, type="ovseg.CLIPBackbone"),
                neck=neck,
                train_cfg=None if train_cfg is None else ConfigDict(train_cfg),
                test_cfg=None if test_cfg is None else ConfigDict(test_cfg),
                **parts,
            )
        self.tau, self.score_weight = tau, score_weight
        self.start_prompting(
            vocabulary,
            neck or {},
            class_tokens,
            context_tokens,
            too_long,
            score_level,
            dict(context_decoder or {}),
            gamma,
            self.heads(),
        )
        self._score: Tensor | None = None  # of the images that were read last

    @abstractmethod
    def heads(self) -> dict[str, int]:
        """The heads that distinguish classes, and their numbers of classes."""

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        levels, self._score = self.prompted_levels(batch_inputs, 1 / self.tau)
        return self.neck(levels) if self.with_neck else tuple(levels)

    def loss(self, batch_inputs: Tensor, batch_data_samples) -> dict:
        """Losses of the detector, and ``loss_score`` of the score maps."""
        losses = super().loss(batch_inputs, batch_data_samples)
        truth = [sample.gt_instances for sample in batch_data_samples]
        grid = tuple(max(1, side // CELL) for side in batch_inputs.shape[-2:])
        boxes = [get_box_tensor(each.bboxes) for each in truth]
        targets = box_targets(boxes, [each.labels for each in truth], len(self.vocabulary), grid)
        score, self._score = self._score, None
        losses["loss_score"] = self.score_weight * box_score_loss(score / self.tau, targets.to(score.device))
        return losses

    def predict(self, batch_inputs: Tensor, batch_data_samples, rescale: bool = True):
        """As the detector, with ``provenance`` added to the metainfo of the samples."""
        samples = super().predict(batch_inputs, batch_data_samples, rescale)
        self._score = None
        for sample in samples:
            sample.set_metainfo({"provenance": self.provenance})
        return samples


@MODELS.register_module()
class DenseCLIPRetinaNet(PromptedDetector, RetinaNet):
    """``RetinaNet`` on a prompted backbone; arguments of both, see ``PromptedDetector``."""

    name = "denseclip_retinanet"

    def heads(self) -> dict[str, int]:
        return {"bbox_head": self.bbox_head.num_classes}


@MODELS.register_module()
class DenseCLIPMaskRCNN(PromptedDetector, MaskRCNN):
    """``MaskRCNN`` on a prompted backbone; arguments of both, see ``PromptedDetector``."""

    name = "denseclip_mask_rcnn"

    def heads(self) -> dict[str, int]:
        heads = {"bbox_head": self.roi_head.bbox_head.num_classes}
        if self.roi_head.with_mask and not self.roi_head.mask_head.class_agnostic:
            heads["mask_head"] = self.roi_head.mask_head.num_classes
        return heads
