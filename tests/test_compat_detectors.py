"""MMDetection models train and predict on the stand-in for mmcv's compiled operators."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

from ovseg.compat import install_mmcv_ops

install_mmcv_ops()  # before mmdet is imported

from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.structures.mask import BitmapMasks  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402

SIZE, CLASSES, WIDTH = 64, 3, 16


def backbone(dcn: bool = False) -> dict:
    """A narrow ResNet with levels of 8, 16, 32 and 64 channels; only those with bottlenecks take deformable layers."""
    narrow = {"type": "ResNet", "depth": 18, "base_channels": 8, "norm_eval": False}
    deform = {"depth": 50, "base_channels": 2, "stage_with_dcn": (False, False, True, True)}
    return narrow | deform | {"dcn": {"type": "DCNv2", "deform_groups": 1}} if dcn else narrow


def neck(outs: int, **more) -> dict:
    return {"type": "FPN", "in_channels": [8, 16, 32, 64], "out_channels": WIDTH, "num_outs": outs, **more}


def preprocessor(**more) -> dict:
    return {"type": "DetDataPreprocessor", "mean": [120.0] * 3, "std": [60.0] * 3, "pad_size_divisor": 32, **more}


def coder(stds) -> dict:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": stds}


def assigner(low: float, high: float) -> dict:
    return {"type": "MaxIoUAssigner", "pos_iou_thr": high, "neg_iou_thr": low, "min_pos_iou": low}


CROSS_ENTROPY = {"type": "CrossEntropyLoss", "use_sigmoid": False}
SIGMOID = {"type": "CrossEntropyLoss", "use_sigmoid": True}
L1 = {"type": "L1Loss"}


def two_stage(masks: bool, nms: str = "nms", dcn: bool = False) -> dict:
    strides = [4, 8, 16, 32, 64]
    proposals = {"nms_pre": 100, "max_per_img": 30, "nms": {"type": "nms", "iou_threshold": 0.7}}

    def extractor(size):
        roi = {"type": "RoIAlign", "output_size": size, "sampling_ratio": 0}
        return {"type": "SingleRoIExtractor", "roi_layer": roi, "out_channels": WIDTH, "featmap_strides": strides[:4]}

    roi_head = {
        "type": "StandardRoIHead",
        "bbox_roi_extractor": extractor(7),
        "bbox_head": {
            "type": "Shared2FCBBoxHead",
            "in_channels": WIDTH,
            "fc_out_channels": 32,
            "num_classes": CLASSES,
            "bbox_coder": coder([0.1, 0.1, 0.2, 0.2]),
            "loss_cls": CROSS_ENTROPY,
            "loss_bbox": L1,
        },
    }
    if masks:
        roi_head["mask_roi_extractor"] = extractor(14)
        roi_head["mask_head"] = {
            "type": "FCNMaskHead",
            "num_convs": 1,
            "in_channels": WIDTH,
            "conv_out_channels": WIDTH,
            "num_classes": CLASSES,
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True},
        }
    sampler = {"type": "RandomSampler", "num": 32, "pos_fraction": 0.5}
    anchors = {"assigner": assigner(0.3, 0.6), "sampler": sampler | {"add_gt_as_proposals": False}}
    return {
        "type": "MaskRCNN" if masks else "FasterRCNN",
        "data_preprocessor": preprocessor(pad_mask=masks),
        "backbone": backbone(dcn),
        "neck": neck(5),
        "rpn_head": {
            "type": "RPNHead",
            "in_channels": WIDTH,
            "feat_channels": WIDTH,
            "anchor_generator": {"type": "AnchorGenerator", "scales": [4], "ratios": [0.5, 2.0], "strides": strides},
            "bbox_coder": coder([1.0] * 4),
            "loss_cls": SIGMOID,
            "loss_bbox": L1,
        },
        "roi_head": roi_head,
        "train_cfg": {
            "rpn": anchors | {"allowed_border": -1, "pos_weight": -1},
            "rpn_proposal": proposals,
            "rcnn": {"assigner": assigner(0.5, 0.5), "sampler": sampler, "mask_size": 28, "pos_weight": -1},
        },
        "test_cfg": {
            "rpn": proposals,
            "rcnn": {
                "score_thr": 0.0,
                "nms": {"type": nms, "iou_threshold": 0.5},
                "max_per_img": 10,
                "mask_thr_binary": 0.5,
            },
        },
    }


def retinanet() -> dict:
    anchors = {"type": "AnchorGenerator", "octave_base_scale": 4, "scales_per_octave": 1, "ratios": [1.0]}
    return {
        "type": "RetinaNet",
        "data_preprocessor": preprocessor(),
        "backbone": backbone(),
        "neck": neck(5, start_level=1, add_extra_convs="on_input"),
        "bbox_head": {
            "type": "RetinaHead",
            "num_classes": CLASSES,
            "in_channels": WIDTH,
            "stacked_convs": 1,
            "feat_channels": WIDTH,
            "anchor_generator": anchors | {"strides": [8, 16, 32, 64, 128]},
            "bbox_coder": coder([1.0] * 4),
            "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25},
            "loss_bbox": L1,
        },
        "train_cfg": {
            "assigner": assigner(0.4, 0.5),
            "sampler": {"type": "PseudoSampler"},
            "allowed_border": -1,
            "pos_weight": -1,
        },
        "test_cfg": {"nms_pre": 100, "score_thr": 0.0, "nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 10},
    }


def mask2former() -> dict:
    attention = {"embed_dims": WIDTH, "num_heads": 2, "batch_first": True}
    feed_forward = {"embed_dims": WIDTH, "feedforward_channels": 32, "num_fcs": 2, "ffn_drop": 0.0}
    position = {"num_feats": WIDTH // 2, "normalize": True}
    dice = {"type": "DiceLoss", "use_sigmoid": True, "activate": True, "naive_dice": True, "eps": 1.0}
    return {
        "type": "Mask2Former",
        "data_preprocessor": preprocessor(pad_mask=True),
        "backbone": backbone(),
        "panoptic_head": {
            "type": "Mask2FormerHead",
            "in_channels": [8, 16, 32, 64],
            "strides": [4, 8, 16, 32],
            "feat_channels": WIDTH,
            "out_channels": WIDTH,
            "num_things_classes": CLASSES,
            "num_stuff_classes": 0,
            "num_queries": 8,
            "num_transformer_feat_level": 3,
            "pixel_decoder": {
                "type": "MSDeformAttnPixelDecoder",
                "num_outs": 3,
                "norm_cfg": {"type": "GN", "num_groups": 4},
                "act_cfg": {"type": "ReLU"},
                "encoder": {
                    "num_layers": 1,
                    "layer_cfg": {
                        "self_attn_cfg": attention | {"num_levels": 3, "num_points": 2},
                        "ffn_cfg": feed_forward,
                    },
                },
                "positional_encoding": position,
            },
            "enforce_decoder_input_project": False,
            "positional_encoding": position,
            "transformer_decoder": {
                "return_intermediate": True,
                "num_layers": 2,
                "layer_cfg": {"self_attn_cfg": attention, "cross_attn_cfg": attention, "ffn_cfg": feed_forward},
            },
            "loss_cls": CROSS_ENTROPY | {"loss_weight": 2.0, "class_weight": [1.0] * CLASSES + [0.1]},
            "loss_mask": SIGMOID | {"loss_weight": 5.0},
            "loss_dice": dice | {"loss_weight": 5.0},
        },
        "panoptic_fusion_head": {
            "type": "MaskFormerFusionHead",
            "num_things_classes": CLASSES,
            "num_stuff_classes": 0,
        },
        "train_cfg": {
            "num_points": 64,
            "oversample_ratio": 3.0,
            "importance_sample_ratio": 0.75,
            "assigner": {
                "type": "HungarianAssigner",
                "match_costs": [
                    {"type": "ClassificationCost", "weight": 2.0},
                    {"type": "CrossEntropyLossCost", "weight": 5.0, "use_sigmoid": True},
                    {"type": "DiceCost", "weight": 5.0, "pred_act": True, "eps": 1.0},
                ],
            },
            "sampler": {"type": "MaskPseudoSampler"},
        },
        "test_cfg": {"panoptic_on": False, "semantic_on": False, "instance_on": True, "max_per_image": 10},
    }


MODELS_ON_TRIAL = {
    "Faster R-CNN": (lambda: two_stage(masks=False), False),
    "Faster R-CNN, soft-NMS, DCNv2": (lambda: two_stage(masks=False, nms="soft_nms", dcn=True), False),
    "Mask R-CNN": (lambda: two_stage(masks=True), True),
    "RetinaNet": (retinanet, False),
    "Mask2Former": (mask2former, True),
}


@pytest.fixture(scope="module", autouse=True)
def mmdet_scope():
    register_all_modules(init_default_scope=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small only lose by more, and lose much where processors are shared
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield
    torch.set_num_threads(threads)


def batch(images: int = 2) -> dict:
    """Pictures with two bright rectangles each, labeled."""
    inputs, samples = [], []
    for index in range(images):
        image = torch.randint(0, 60, (3, SIZE, SIZE), dtype=torch.uint8)
        boxes = [[6 + 4 * index, 8, 30, 36], [34, 30, 60, 58 - 4 * index]]
        masks = np.zeros((2, SIZE, SIZE), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            mask[y1:y2, x1:x2] = 1
            image[:, y1:y2, x1:x2] += 150
        shape = (SIZE, SIZE)
        metainfo = {"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0), "img_id": index}
        sample = DetDataSample(metainfo=metainfo)
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            labels=torch.tensor([index, 2]),
            masks=BitmapMasks(masks, *shape),
        )
        sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, *shape), 255))
        inputs.append(image)
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


@pytest.mark.parametrize("name", MODELS_ON_TRIAL)
def test_trains_and_predicts(name):
    torch.manual_seed(0)
    config, has_masks = MODELS_ON_TRIAL[name]
    model = MODELS.build(ConfigDict(config())).train()

    losses = model(**model.data_preprocessor(batch(), training=True), mode="loss")
    total, values = model.parse_losses(losses)
    assert all(value.isfinite().all() for value in values.values()) and total > 0
    total.backward()
    gradients = {n: p.grad for n, p in model.backbone.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert sum(bool(gradient.abs().sum() > 0) for gradient in gradients.values()) > 10
    if "DCNv2" in name:
        assert gradients["layer4.0.conv2.conv_offset.weight"].abs().sum() > 0

    model.eval()
    with torch.no_grad():
        results = model(**model.data_preprocessor(batch(), training=False), mode="predict")
    assert len(results) == 2
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= 10
        assert found.bboxes.shape == (len(found), 4) and found.bboxes.isfinite().all()
        assert found.bboxes.min() >= 0 and found.bboxes.max() <= SIZE
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert ((found.labels >= 0) & (found.labels < CLASSES)).all()
        if has_masks:
            assert found.masks.shape == (len(found), SIZE, SIZE) and found.masks.dtype == torch.bool


def test_steps_lower_the_loss():
    """A few steps on one batch: the gradients point the right way through RoIAlign, NMS and the heads."""
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(two_stage(masks=False))).train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    history = []
    for _ in range(12):
        total, _ = model.parse_losses(model(**model.data_preprocessor(batch(), training=True), mode="loss"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert np.mean(history[-3:]) < 0.7 * np.mean(history[:3])
