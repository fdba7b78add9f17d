"""Class-agnostic boxes for text-based detectors: from a frozen detector, an RPN of their own, or the samples.

    dict(type="FrozenRPN", config="faster-rcnn_r50_fpn_1x_coco.py", checkpoint="base.pth")   a detector of MMDetection
    dict(type="OwnRPN")                            an RPN on the tower's stages, trained on the boxes of the run
    dict(type="GivenBoxes", source="ground_truth")                       the ground-truth-box protocol
    dict(type="GivenBoxes")                        ``proposals`` of the samples, such as those of mmdet.LoadProposals
    dict(type="RandomBoxes", count=100)            for pretraining without any proposal network

All return an ``InstanceData`` per image: ``bboxes`` in pixels of the network's input, ``scores`` in (0, 1).
"""

import copy
from collections.abc import Sequence

import torch
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from ovseg.compat.checkpoint import read_checkpoint
from ovseg.registry import MODELS
from ovseg.towers import Tower

EPS = 1e-6  # scores are kept this far from 0 and 1 before they become logits


def objectness_logits(scores: Tensor) -> Tensor:
    """Logits of RPN scores (R,), which MMDetection gives as probabilities."""
    return scores.float().logit(EPS)


def scale_of(sample) -> list[float]:
    """The factors from boxes (x1, y1, x2, y2) of the original image to pixels of the input."""
    return list(sample.metainfo.get("scale_factor", (1.0, 1.0))) * 2


def tensor(boxes) -> Tensor:
    """Boxes as a plain tensor (R, 4)."""
    return boxes if isinstance(boxes, Tensor) else boxes.tensor


def build_proposals(config: dict | None, tower: Tower) -> "ProposalGenerator":
    """Build the module of a config (None: ``OwnRPN``) for a ResNet tower."""
    config = dict(config or dict(type="OwnRPN"))
    fitting = dict(
        OwnRPN=dict(channels=[tower.width // 8, tower.width // 4, tower.width // 2]), FrozenRPN=dict(tower=tower)
    )
    return MODELS.build(config | fitting.get(config["type"].rpartition(".")[2], {}))


class ProposalGenerator(BaseModule):
    """Base: no losses."""

    def loss(self, stages: Sequence[Tensor], samples) -> dict[str, Tensor]:
        return {}


@MODELS.register_module()
class GivenBoxes(ProposalGenerator):
    """Boxes of the data samples.

    Args:
        source: ``proposals``, in pixels of the input, with or without ``scores`` (1 without them); or
            ``ground_truth``, the boxes of ``gt_instances``, in pixels of the original image in prediction and of the
            input in training, as MMDetection has them.

    Raises:
        ValueError: another source.
    """

    def __init__(self, source: str = "proposals"):
        super().__init__()
        if source not in ("proposals", "ground_truth"):
            raise ValueError(f"GivenBoxes: source is 'proposals' or 'ground_truth', got {source!r}.")
        self.source = source
        self.field = "proposals" if source == "proposals" else "gt_instances"

    def forward(self, images: Tensor, stages: Sequence[Tensor], samples) -> list[InstanceData]:
        """
        Raises:
            ValueError: a sample without the required boxes.
        """
        results = []
        for sample in samples:
            if self.field not in sample or "bboxes" not in sample.get(self.field):
                advice = (
                    "load them with dict(type='mmdet.LoadProposals')"
                    if self.source == "proposals"
                    else "load them with dict(type='mmdet.LoadAnnotations', with_bbox=True)"
                )
                raise ValueError(
                    f"proposals=dict(type='GivenBoxes', source={self.source!r}) takes {self.field}.bboxes of each "
                    f"sample, and {sample.metainfo.get('img_path', 'this one')} has none: {advice}, before "
                    "PackDetInputs."
                )
            source = sample.get(self.field)
            boxes = tensor(source.bboxes).to(images.device, torch.float32)
            if self.source == "ground_truth" and not self.training:
                boxes = boxes * boxes.new_tensor(scale_of(sample))
            scores = source.scores.to(images.device) if "scores" in source else boxes.new_ones(len(boxes))
            results.append(InstanceData(bboxes=boxes, scores=scores))
        return results


def random_boxes(count: int, size: tuple[int, int], smallest: float = 0.1) -> Tensor:
    """(count, 4) boxes in an image of ``size`` (H, W) pixels; sides log-uniform from ``smallest`` of its sides to all.

    Ratios of a box's sides to the image's differ by at most three.
    """
    area = smallest ** torch.rand(count, 1)
    ratio = 3 ** (torch.rand(count, 1) - 0.5)
    sides = torch.cat([area * ratio, area / ratio], 1).clamp(smallest, 1)
    corner = torch.rand(count, 2) * (1 - sides)
    width_height = torch.tensor([size[1], size[0]], dtype=torch.float32)
    return torch.cat([corner * width_height, (corner + sides) * width_height], 1)


@MODELS.register_module()
class RandomBoxes(ProposalGenerator):
    """``count`` random boxes per image, of which ``smallest`` is the least side, as a share of the image's."""

    def __init__(self, count: int = 100, smallest: float = 0.1):
        super().__init__()
        self.count, self.smallest = count, smallest

    def forward(self, images: Tensor, stages: Sequence[Tensor], samples) -> list[InstanceData]:
        sizes = [tuple(sample.metainfo["img_shape"][:2]) for sample in samples]
        boxes = [random_boxes(self.count, size, self.smallest).to(images.device) for size in sizes]
        return [InstanceData(bboxes=each, scores=each.new_full((len(each),), 0.5)) for each in boxes]


@MODELS.register_module()
class FrozenRPN(ProposalGenerator):
    """The frozen proposal network of an MMDetection detector.

    Args:
        tower: the tower whose normalization the images have.
        config: a config file of MMDetection, or its ``model``.
        checkpoint: its weights; None leaves them random, for tests.
        nms: IoU threshold of the NMS; published: 0.7, for zero-shot use 0.9.
        count: boxes kept per image.

    Raises:
        FileNotFoundError, ValueError: missing weights, weights that do not fit, or a detector without an RPN.
    """

    def __init__(
        self, tower: Tower, config: str | dict, checkpoint: str | None = None, nms: float = 0.7, count: int = 1000
    ):
        super().__init__()
        self.denormalize = tower.denormalize
        model = Config.fromfile(config).model if isinstance(config, str) else ConfigDict(copy.deepcopy(dict(config)))
        with MMDET_MODELS.switch_scope_and_registry("mmdet"):
            self.model = MMDET_MODELS.build(model)
        if not hasattr(self.head, "_bbox_post_process") or getattr(self.head, "num_classes", 1) != 1:
            raise ValueError(
                f"FrozenRPN takes a detector with a class-agnostic first stage, and {type(self.model).__name__} has "
                "none: give for example the config of mmdet's RPN, FasterRCNN or MaskRCNN."
            )
        limits = dict(max_per_img=count, nms=dict(type="nms", iou_threshold=nms), min_bbox_size=0)
        self.test_cfg = ConfigDict(dict(self.head.test_cfg) | limits)
        if checkpoint is not None:
            self._load(checkpoint)
        self.eval().requires_grad_(False)

    @property
    def head(self):
        return self.model.rpn_head if getattr(self.model, "with_rpn", False) else self.model.bbox_head

    def _load(self, checkpoint: str):
        state = read_checkpoint(checkpoint)
        if not getattr(self.model, "with_rpn", False):
            state = {name.replace("rpn_head.", "bbox_head."): value for name, value in state.items()}
        wanted = {k: v for k, v in self.model.state_dict().items() if not k.startswith("roi_head.")}
        wrong = [k for k, v in wanted.items() if k not in state or state[k].shape != v.shape]
        wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]
        if wrong:
            raise ValueError(
                f"{checkpoint} does not fit the proposal network: {len(wrong)} of its {len(wanted)} tensors are "
                f"missing or of another shape ({', '.join(wrong[:3])}). Proposals of unloaded weights find nothing: "
                "give the config of the checkpoint; files of RegionCLIP go through tools/convert_regionclip.py first."
            )
        self.model.load_state_dict({name: state[name] for name in wanted if name in state}, strict=False)

    def init_weights(self):
        """The weights are those of the checkpoint."""

    def train(self, mode: bool = True):
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, stages: Sequence[Tensor], samples) -> list[InstanceData]:
        pixels = 255 * self.denormalize(images)
        reader = self.model.data_preprocessor
        if not getattr(reader, "_channel_conversion", False):
            pixels = pixels.flip(1)
        if getattr(reader, "_enable_normalize", False):
            pixels = (pixels - reader.mean) / reader.std
        features = self.model.extract_feat(pixels)
        metas = [sample.metainfo for sample in samples]
        predictions = self.head.predict_by_feat(*self.head(features), batch_img_metas=metas, cfg=self.test_cfg)
        return [InstanceData(bboxes=tensor(each.bboxes), scores=each.scores) for each in predictions]


@MODELS.register_module()
class OwnRPN(ProposalGenerator):
    """FPN and RPN on the stages of the tower, trained on the boxes of the run.

    The stages are detached: the boxes do not train the tower.

    Args:
        channels: of the stages, strides 4, 8 and 16; set by the detector.
        width: of the pyramid.
        outs: number of levels, strides 4, 8, 16, …; levels beyond the stages are pooled from the last.
        scales, ratios: of the anchors, in units of the stride.
        convs: convolutions of the RPN.
        nms: IoU of its NMS.
        count, train_count: boxes kept per image.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int = 256,
        outs: int = 5,
        scales: Sequence[float] = (8,),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        convs: int = 1,
        nms: float = 0.7,
        count: int = 1000,
        train_count: int = 1000,
    ):
        super().__init__()
        limits = dict(nms_pre=2 * max(count, train_count), nms=dict(type="nms", iou_threshold=nms), min_bbox_size=0)
        assigner = dict(type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)
        sampler = dict(type="RandomSampler", num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False)
        train = dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1, debug=False)
        with MMDET_MODELS.switch_scope_and_registry("mmdet"):
            self.neck = MMDET_MODELS.build(
                dict(type="FPN", in_channels=list(channels), out_channels=width, num_outs=outs)
            )
            head = dict(
                type="RPNHead",
                in_channels=width,
                feat_channels=width,
                num_convs=convs,
                anchor_generator=dict(
                    type="AnchorGenerator",
                    scales=list(scales),
                    ratios=list(ratios),
                    strides=[4 * 2**i for i in range(outs)],
                ),
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
                loss_bbox=dict(type="L1Loss", loss_weight=1.0),
                train_cfg=train,
                test_cfg=limits | dict(max_per_img=count),
            )
            self.head = MMDET_MODELS.build(ConfigDict(head))
        self.train_cfg = ConfigDict(limits | dict(max_per_img=train_count))

    def _features(self, stages: Sequence[Tensor]):
        return self.neck(tuple(stage.detach() for stage in stages))

    def loss(self, stages: Sequence[Tensor], samples) -> dict[str, Tensor]:
        samples = copy.deepcopy(samples)
        for sample in samples:
            sample.gt_instances.labels = torch.zeros_like(sample.gt_instances.labels)
        losses = self.head.loss(self._features(stages), samples)
        return {name: sum(value) if isinstance(value, (list, tuple)) else value for name, value in losses.items()}

    @torch.no_grad()
    def forward(self, images: Tensor, stages: Sequence[Tensor], samples) -> list[InstanceData]:
        metas = [sample.metainfo for sample in samples]
        cfg = self.train_cfg if self.training else self.head.test_cfg
        predictions = self.head.predict_by_feat(*self.head(self._features(stages)), batch_img_metas=metas, cfg=cfg)
        return [InstanceData(bboxes=tensor(each.bboxes), scores=each.scores) for each in predictions]
