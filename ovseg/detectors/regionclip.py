"""RegionCLIP: Region-based Language-Image Pretraining (Zhong et al., CVPR 2022): the two-stage detector.

boxes by a separate proposal network (``detectors.proposals``)  →  region features of a CLIP ResNet, text as classifier
and class-agnostic box deltas (``detectors.regionclip_head``, equations in ``regions.regionclip``)

Stem, first stage and BatchNorms of the tower are frozen; later stages and the attention pool train with the boxes.
"""

import copy
from collections.abc import Sequence

from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ovseg.regions.regionclip import REQUIRES, res_stages, table_side
from ovseg.registry import MODELS, did_you_mean
from ovseg.segmentors.frozen_module import FrozenModule
from ovseg.towers import Tower, load_tower, require

from .proposals import build_proposals
from .regionclip_head import RegionCLIPRoIHead
from .runtime_classes import RuntimeClasses

SOFT = dict(type="soft_nms", method="gaussian", sigma=0.5, iou_threshold=0.5, min_score=0.001)
HARD = dict(type="nms", iou_threshold=0.5)
SETTINGS = {  # published: objectness in the score, deltas, score threshold, NMS, detections per image
    "coco": dict(objectness=None, deltas=True, score_thr=0.001, nms=SOFT, max_per_img=100),
    "lvis": dict(objectness="probability", deltas=True, score_thr=0.02, nms=SOFT, max_per_img=300),
    "zero_shot": dict(objectness="probability", deltas=False, score_thr=0.001, nms=HARD, max_per_img=100),
    "ground_truth": dict(objectness=None, deltas=False, score_thr=0.0001, nms=HARD, max_per_img=300),
}


def train_above(tower: Tower, frozen_stages: int):
    """Make the stages above ``frozen_stages`` and the attention pool trainable; BatchNorms stay frozen.

    Stages are counted as usual: 1 is the stem, 2 the stem and ``layer1``; 5 freezes all but the attention pool.

    Raises:
        ValueError: another number of stages.
    """
    if not 0 <= frozen_stages <= 5:
        raise ValueError(f"frozen_stages counts the stem and four stages, 0 to 5; got {frozen_stages}.")
    tower.requires_grad_(False)
    tower.visual.requires_grad_(True)
    visual = tower.visual
    stem = [visual.conv1, visual.conv2, visual.conv3]
    stages = [nn.ModuleList(stem), visual.layer1, visual.layer2, visual.layer3, visual.layer4]
    for module in stages[:frozen_stages]:
        module.requires_grad_(False)
    for module in visual.modules():
        if isinstance(module, _BatchNorm):
            module.requires_grad_(False)
    visual.attnpool.k_proj.bias.requires_grad_(False)  # it moves all logits of a query alike, so nothing depends on it


def preprocessor(tower: Tower, masks: bool = False) -> dict:
    """MMDetection's preprocessor with the normalization of the weights."""
    mean, std = ([255 * v for v in values] for values in (tower.preprocess.mean, tower.preprocess.std))
    kind = "mmdet.DetDataPreprocessor"
    return dict(type=kind, mean=mean, std=std, bgr_to_rgb=True, pad_size_divisor=32, pad_mask=masks)


class ResNetDetector(RuntimeClasses, BaseDetector):
    """Shared by detectors on a CLIP ResNet: the tower, its text embeddings, frozen parts."""

    def __init__(self, weights, vocabulary, unseen, templates, text_weights, frozen_stages, masks, data_preprocessor):
        tower = weights if isinstance(weights, Tower) else load_tower(weights)
        require(tower, REQUIRES, type(self).__name__)
        super().__init__(data_preprocessor=data_preprocessor or preprocessor(tower, masks))
        self.tower = tower
        train_above(tower, frozen_stages)
        if text_weights is not None:
            loaded = isinstance(text_weights, Tower)
            self.text_tower = FrozenModule(text_weights if loaded else load_tower(text_weights))
        self.open_words(tower if text_weights is None else self.text_tower._held[0], vocabulary, unseen, templates)

    def train(self, mode: bool = True):
        """The tower stays in evaluation mode: its statistics are part of its weights."""
        super().train(mode)
        self.tower.eval()
        return self

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(res_stages(self.tower, batch_inputs))

    def _forward(self, batch_inputs: Tensor, batch_data_samples=None):
        return self.extract_feat(batch_inputs)


@MODELS.register_module()
class RegionCLIP(ResNetDetector):
    """A two-stage open-vocabulary detector.

    Args:
        weights: a CLIP ResNet, see ``ovseg.towers.weights``; released files of RegionCLIP too.
        vocabulary: classes of the training labels, anything ``Vocabulary.parse`` takes; ``set_classes`` replaces them
            in prediction.
        proposals: ``FrozenRPN``, ``OwnRPN`` or ``GivenBoxes`` of ``detectors.proposals``.
        setting: ``coco``, ``lvis`` (fine-tuned), ``zero_shot`` or ``ground_truth``: published settings of prediction.
            Zero-shot use also needs an NMS of 0.9 in the proposals.
        test_cfg: changes to them, among ``objectness``, ``deltas``, ``score_thr``, ``nms``, ``max_per_img`` and
            ``mask_thr_binary``. ``objectness='logit'`` is the rule of the reference.
        unseen: names (or a file of them) hidden from training: instances are dropped, logits masked.
        background, gamma: of the classification loss: weight of background, focal scaling. Published for COCO 0.2 and
            0.5, for LVIS 0.8 and 0.
        masks: add a class-agnostic mask head on the maps of ``layer4``.
        samples: regions per image in training, at most a quarter of them objects.
        frozen_stages: see ``train_above``.
        temperature: τ.
        templates: prompt templates.
        text_weights: CLIP weights that encode the names if ``weights`` has no text tower.
        data_preprocessor: see ``BaseDetector``; the weights' normalization unless given.

    Raises:
        ValueError: unknown settings, unsuitable names or weights; a tower that is not a ResNet.
    """

    name = "regionclip"
    loader = "TrainedDetector"

    def __init__(
        self,
        vocabulary,
        weights: str | Tower | None = None,
        proposals: dict | None = None,
        setting: str = "coco",
        test_cfg: dict | None = None,
        unseen: Sequence[str] | str = (),
        background: float = 0.2,
        gamma: float = 0.5,
        masks: bool = False,
        samples: int = 512,
        frozen_stages: int = 2,
        temperature: float = 0.01,
        templates="imagenet_80",
        text_weights: str | Tower | None = None,
        data_preprocessor: dict | None = None,
    ):
        tower = weights if isinstance(weights, Tower) else load_tower(weights)
        side, test = table_side(tower), self._test_settings(setting, test_cfg)
        super().__init__(tower, vocabulary, unseen, templates, text_weights, frozen_stages, masks, data_preprocessor)
        self.setting = dict(setting=setting, temperature=temperature, templates=str(templates)) | test
        self.proposals = build_proposals(proposals, tower)
        iou = 0.5
        train = dict(
            assigner=dict(
                type="MaxIoUAssigner", pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou, match_low_quality=False
            ),
            sampler=dict(type="RandomSampler", num=samples, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
            pos_weight=-1,
            mask_size=2 * side,
            debug=False,
        )
        head = dict(
            background=background,
            gamma=gamma,
            in_channels=tower.embed_dim,
            num_classes=len(self.train_vocabulary),
            loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        )
        mask_head = dict(
            type="FCNMaskHead",
            num_convs=0,
            in_channels=tower.width,
            roi_feat_size=side,
            conv_out_channels=256,
            num_classes=len(self.train_vocabulary),
            class_agnostic=True,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        )
        with MMDET_MODELS.switch_scope_and_registry("mmdet"):
            self.roi_head = RegionCLIPRoIHead(
                temperature=temperature,
                deltas=test["deltas"],
                objectness=test["objectness"],
                bbox_head=head,
                mask_head=ConfigDict(mask_head) if masks else None,
                train_cfg=ConfigDict(train),
                test_cfg=ConfigDict(test),
            )
        self.roi_head.attach(tower)

    @staticmethod
    def _test_settings(setting: str, changes: dict | None) -> dict:
        if setting not in SETTINGS:
            raise ValueError(
                f"unknown setting {setting!r} of RegionCLIP. {did_you_mean(setting, SETTINGS)}There are: "
                f"{', '.join(SETTINGS)}."
            )
        known = SETTINGS[setting] | {"mask_thr_binary": 0.5}
        for name in changes or {}:
            if name not in known:
                raise ValueError(f"unknown test_cfg.{name}. {did_you_mean(name, known)}There are: {', '.join(known)}.")
        return copy.deepcopy(known | dict(changes or {}))

    @property
    def settings(self) -> dict:
        return dict(self.setting)

    def loss(self, batch_inputs: Tensor, batch_data_samples) -> dict[str, Tensor]:
        samples = self.without_hidden(batch_data_samples)
        stages = self.extract_feat(batch_inputs)
        losses = self.proposals.loss(stages, samples)
        boxes = self.proposals(batch_inputs, stages, samples)
        self._read(self.train_vocabulary, self.hidden)
        return losses | self.roi_head.loss(stages, boxes, samples)

    def predict(self, batch_inputs: Tensor, batch_data_samples, rescale: bool = True, features=None):
        """``pred_instances`` of each sample: ``bboxes``, ``scores``, ``labels`` (and ``masks``).

        ``features`` are what ``extract_feat`` gave for the images, where it has run.
        """
        stages = self.extract_feat(batch_inputs) if features is None else features
        boxes = self.proposals(batch_inputs, stages, batch_data_samples)
        self._read(self.vocabulary)
        predictions = self.roi_head.predict(stages, boxes, batch_data_samples, rescale=rescale)
        for sample in batch_data_samples:
            sample.set_metainfo({"provenance": self.provenance})
        return self.add_pred_to_datasample(batch_data_samples, predictions)

    def _read(self, vocabulary, hidden: Tensor | None = None):
        self.roi_head.classifier.set_words(*self.embeddings(vocabulary), len(vocabulary), hidden)
