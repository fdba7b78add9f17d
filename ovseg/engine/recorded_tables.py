"""What a checkpoint may say of a detector: for each name of MMDetection's and ovseg's its keys, their kinds and ranges.

Keys that would open or fetch something (``init_cfg``, ``checkpoint``) and settings of training are on no table.
"""

from pathlib import Path
from typing import Any

from mmdet.registry import MODELS

from ovseg.compat.untrusted import Check, either, flag, listed, mapping, nothing, number, optional, shown, text, whole
from ovseg.compat.untrusted_types import component
from ovseg.registry import DENSE
from ovseg.registry import MODELS as OWN_MODELS
from ovseg.text.benchmark_vocabularies import canonical_benchmark
from ovseg.towers.metadata import template
from ovseg.towers.weights import SUFFIXES

SHARE, FACTOR, SIDE = number(0, 1), number(0, 1000), whole(1, 4096)
CHANNELS, LAYERS, BOXES = whole(1, 65_536), whole(0, 64), whole(1, 100_000)
WORD = text(200)
NORM = optional(
    mapping(
        {
            "type": text(10, "BN", "BN2d", "SyncBN", "GN", "LN", "LN2d", "IN"),
            "num_groups": whole(1, 1024),
            "requires_grad": flag,
            "eps": number(0, 1),
            "momentum": SHARE,
        }
    )
)
CONVOLUTION = optional(mapping({"type": text(10, "Conv", "Conv2d")}))
ACTIVATION = optional(
    mapping({"type": text(20, "ReLU", "LeakyReLU", "GELU", "SiLU"), "inplace": flag, "negative_slope": SHARE})
)
NMS = mapping(
    {
        "type": text(20, "nms", "soft_nms"),  # MMCV evaluates this word as Python
        "iou_threshold": SHARE,
        "method": text(20, "linear", "gaussian", "naive"),
        "sigma": FACTOR,
        "min_score": SHARE,
        "class_agnostic": flag,
        "split_thr": BOXES,
        "max_num": whole(-1, 100_000),
    }
)
DEVIATIONS = listed(number(-100, 100), 4, 4)
LOSS = {"use_sigmoid": flag, "use_mask": flag, "loss_weight": FACTOR, "beta": FACTOR, "gamma": FACTOR, "alpha": FACTOR}
RPN = {
    "in_channels": CHANNELS,
    "feat_channels": CHANNELS,
    "num_convs": whole(1, 64),
    "num_classes": whole(1, 1),
    "anchor_generator": mapping(
        {
            "type": text(30, "AnchorGenerator", "mmdet.AnchorGenerator"),
            "scales": listed(FACTOR, 32, 1),
            "ratios": listed(number(1e-3, 1e3), 32, 1),
            "strides": listed(either(number(1, 4096), listed(number(1, 4096), 2, 2)), 16, 1),
            "scale_major": flag,
            "octave_base_scale": FACTOR,
            "scales_per_octave": whole(1, 16),
            "center_offset": SHARE,
        }
    ),
    "loss_cls": component(MODELS, dict.fromkeys(("CrossEntropyLoss", "FocalLoss"), mapping(LOSS)), "CrossEntropyLoss"),
    "loss_bbox": component(MODELS, dict.fromkeys(("L1Loss", "SmoothL1Loss", "GIoULoss"), mapping(LOSS)), "L1Loss"),
}
CODER = mapping(
    {
        "type": text(40, "DeltaXYWHBBoxCoder", "mmdet.DeltaXYWHBBoxCoder"),
        "target_means": DEVIATIONS,
        "target_stds": DEVIATIONS,
        "clip_border": flag,
    }
)
RPN["bbox_coder"] = CODER
BOX_HEAD = {
    **{f"num_{of}_{kind}": LAYERS for of in ("shared", "cls", "reg") for kind in ("convs", "fcs")},
    **{name: CHANNELS for name in ("conv_out_channels", "fc_out_channels", "in_channels", "embed_dim", "num_classes")},
    "roi_feat_size": whole(1, 64),
    "conv_cfg": CONVOLUTION,
    "norm_cfg": NORM,
    "reg_class_agnostic": flag,
    "bbox_coder": CODER,
    "loss_cls": RPN["loss_cls"],
    "loss_bbox": RPN["loss_bbox"],
}
MASK_HEAD = {
    **{name: CHANNELS for name in ("in_channels", "conv_out_channels", "num_classes")},
    "num_convs": LAYERS,
    "roi_feat_size": whole(1, 64),
    "conv_kernel_size": whole(1, 15),
    "class_agnostic": flag,
    "conv_cfg": CONVOLUTION,
    "norm_cfg": NORM,
    "loss_mask": RPN["loss_cls"],
}
EXTRACTOR = mapping(
    {
        "type": text(30, "SingleRoIExtractor", "mmdet.SingleRoIExtractor"),
        "roi_layer": mapping(
            {"type": text(10, "RoIAlign"), "output_size": whole(1, 64), "sampling_ratio": whole(0, 16), "aligned": flag}
        ),
        "out_channels": CHANNELS,
        "featmap_strides": listed(number(1, 4096), 16, 1),
        "finest_scale": whole(1, 4096),
    }
)
NECK = mapping(
    {
        "in_channels": listed(CHANNELS, 16, 1),
        "out_channels": CHANNELS,
        "num_outs": whole(1, 16),
        "start_level": whole(0, 15),
        "end_level": whole(-1, 15),
        "add_extra_convs": either(flag, text(10, "on_input", "on_lateral", "on_output")),
        "relu_before_extra_convs": flag,
        "no_norm_on_lateral": flag,
        "conv_cfg": CONVOLUTION,
        "norm_cfg": NORM,
        "act_cfg": ACTIVATION,
        "upsample_cfg": mapping({"mode": text(10, "nearest", "bilinear")}),
    }
)
PREPROCESSOR = mapping(
    {
        "type": text(40, "DetDataPreprocessor", "mmdet.DetDataPreprocessor"),
        "mean": listed(number(0, 255), 3, 3),
        "std": listed(number(1e-3, 255), 3, 3),
        "bgr_to_rgb": flag,
        "rgb_to_bgr": flag,
        "pad_mask": flag,
        "pad_size_divisor": whole(1, 1024),
        "pad_value": number(0, 255),
    }
)
KEPT = {"score_thr": SHARE, "nms": NMS, "max_per_img": BOXES, "mask_thr_binary": number(-1, 1)}
KEPT_PROPOSALS = {"nms_pre": BOXES, "max_per_img": BOXES, "nms": NMS, "min_bbox_size": number(0, 4096)}
RESNET = {
    "depth": whole(18, 152),
    "num_stages": whole(1, 4),
    "strides": listed(whole(1, 4), 4, 1),
    "dilations": listed(whole(1, 8), 4, 1),
    "out_indices": listed(whole(0, 3), 4, 1),
    "style": text(10, "caffe", "pytorch"),
    "frozen_stages": whole(-1, 4),
    "norm_cfg": NORM,
    "norm_eval": flag,
}
FIRST_STAGE = {
    "data_preprocessor": PREPROCESSOR,
    "backbone": component(MODELS, {"ResNet": mapping(RESNET)}),
    "neck": optional(component(MODELS, {"FPN": NECK})),
    "rpn_head": component(MODELS, {"RPNHead": mapping(RPN)}),
    "train_cfg": nothing,
    "test_cfg": mapping({"rpn": mapping(KEPT_PROPOSALS)}),
}
PROPOSALS = {
    "OwnRPN": mapping(
        {
            "width": CHANNELS,
            "outs": whole(1, 16),
            "scales": listed(FACTOR, 32, 1),
            "ratios": listed(number(1e-3, 1e3), 32, 1),
            "convs": whole(1, 64),
            "nms": SHARE,
            "count": BOXES,
            "train_count": BOXES,
        }
    ),
    "FrozenRPN": mapping({"config": component(MODELS, {"RPN": mapping(FIRST_STAGE)}), "nms": SHARE, "count": BOXES}),
    "GivenBoxes": mapping({"source": text(20, "proposals", "ground_truth")}),
    "RandomBoxes": mapping({"count": BOXES, "smallest": number(1e-3, 1)}),
}


def words(value: Any, place: str) -> Any:
    """The name of a benchmark's vocabulary, or the classes themselves; never a file.

    Raises:
        ValueError: anything else.
    """
    one = either(WORD, mapping({"name": WORD, "synonyms": listed(WORD), "words": listed(WORD), "color": WORD}))
    if isinstance(value, dict):
        policy = mapping({"kind": WORD, "threshold": optional(SHARE), "words": listed(WORD)})
        fields = {"classes": listed(one, 100_000, 1), "background": optional(policy)}
        return mapping(fields)(value, place)
    if isinstance(value, str) and not canonical_benchmark(value):
        raise ValueError(
            f"{place} is {shown(value)}, which is not the name of a benchmark, and files that a checkpoint names are "
            f"not opened. Give the classes themselves: {place.rpartition('.')[2]}=… (ovseg.load)."
        )
    return value if isinstance(value, str) else list(listed(one, 100_000)(value, place))


def tower_source(value: Any, place: str) -> str | None:
    """Weights that a checkpoint may name: a tag of open_clip, or weights on this machine.

    Raises:
        ValueError: anything else.
    """
    source = optional(text(1000))(value, place)
    path = Path(source or "tiny").expanduser()
    elsewhere = source is not None and ("://" in source or source.startswith(("//", "\\\\")))
    if elsewhere or (path.exists() and not path.is_dir() and (path.suffix not in SUFFIXES or not path.is_file())):
        raise ValueError(
            f"{place} is {shown(value)}; a checkpoint may name a tag of open_clip or weights on this machine. Give the "
            f"tower yourself: {place.rpartition('.')[2]}=… (ovseg.load)."
        )
    return source


TEMPLATES = either(text(30, "name", "photo", "openai_7", "imagenet_80", "maskclip_85"), listed(template, 500, 1))
SHARED = {
    "vocabulary": words,
    "weights": tower_source,
    "unseen": words,
    "templates": TEMPLATES,
    "data_preprocessor": optional(PREPROCESSOR),
}
RESNET_SHARED = SHARED | {"proposals": optional(component(OWN_MODELS, PROPOSALS)), "temperature": number(1e-6, 1000)}
DETECTORS = {
    "FViT": SHARED
    | {
        "masks": flag,
        "backbone": mapping(
            {
                "dense": optional(component(DENSE)),
                "scales": listed(number(0.25, 2), 4, 1),
                "out_indices": optional(listed(whole(0, 1024), 4, 1)),
                "norm_cfg": NORM,
                "window": optional(SIDE),
                "window_stride": optional(SIDE),
            }
        ),
        "background": either(WORD, listed(WORD, 1000, 1)),
        "background_weight": FACTOR,
        "temperature": number(1e-6, 1000),
        "vlm": flag,
        "vlm_temperature": optional(number(1e-6, 1000)),
        "alpha": SHARE,
        "beta": SHARE,
        "neck": optional(component(MODELS, {"FPN": NECK}, "FPN")),
        "rpn_head": optional(component(MODELS, {"RPNHead": mapping(RPN)}, "RPNHead")),
        "roi_head": optional(
            component(
                OWN_MODELS,
                {
                    "FViTRoIHead": mapping(
                        {
                            "bbox_roi_extractor": EXTRACTOR,
                            "mask_roi_extractor": EXTRACTOR,
                            "bbox_head": component(OWN_MODELS, {"FViTBBoxHead": mapping(BOX_HEAD)}, "FViTBBoxHead"),
                            "mask_head": component(MODELS, {"FCNMaskHead": mapping(MASK_HEAD)}, "FCNMaskHead"),
                        }
                    )
                },
                "FViTRoIHead",
            )
        ),
        "test_cfg": optional(mapping({"rpn": mapping(KEPT_PROPOSALS), "rcnn": mapping(KEPT)})),
        "statistics": text(10, "tower", "imagenet"),
        "arch": optional(text(100)),
        "quick_gelu": optional(flag),
    },
    "RegionCLIP": RESNET_SHARED
    | {
        "setting": text(20, "coco", "lvis", "zero_shot", "ground_truth"),
        "test_cfg": optional(
            mapping(KEPT | {"objectness": optional(text(20, "probability", "logit")), "deltas": flag})
        ),
        "background": FACTOR,
        "gamma": FACTOR,
        "masks": flag,
        "samples": BOXES,
        "frozen_stages": whole(0, 5),
        "text_weights": tower_source,
    },
    "EdaDet": RESNET_SHARED
    | {
        "background": listed(WORD, 1000),
        "alpha": SHARE,
        "gamma": FACTOR,
        "refiner": optional(mapping({"width": CHANNELS, "depth": whole(1, 64)})),
        "test_cfg": optional(mapping(KEPT)),
    },
}
COLOR, PAIR = number(0, 255), listed(SIDE, 2, 2)
STEPS: dict[str, Check] = {
    "Resize": mapping(
        {
            "scale": either(SIDE, PAIR),
            "scale_factor": either(number(0.01, 16), listed(number(0.01, 16), 2, 2)),
            "keep_ratio": flag,
            "clip_object_border": flag,
            "backend": text(10, "cv2", "pillow"),
            "interpolation": text(10, "nearest", "bilinear", "bicubic", "area", "lanczos"),
        }
    ),
    "Pad": mapping(
        {
            "size": PAIR,
            "size_divisor": whole(1, 1024),
            "pad_to_square": flag,
            "pad_val": either(COLOR, mapping({"img": either(COLOR, listed(COLOR, 3)), "seg": whole(0, 255)})),
        }
    ),
    "PackDetInputs": mapping({"meta_keys": listed(text(40), 40)}),
}
