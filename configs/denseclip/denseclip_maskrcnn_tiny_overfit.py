"""DenseCLIP's Mask R-CNN learns four composed scenes by heart: a smoke test of its training.

    python tools/train.py configs/denseclip/denseclip_maskrcnn_tiny_overfit.py

Pyramid of strides 4, 8 and 16 on the embedded demo model; all 94 objects are known (a closed-set method).
"""

_base_ = "../_base_/train.py"

_load = [dict(type="LoadScenePicture"), dict(type="LoadSceneBoxes")]
_scenes = dict(type="SceneBoxes", count=4, split="train", first_seed=2_000_000)
_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
_nms = dict(type="nms", iou_threshold=0.7)
_roi = dict(type="SingleRoIExtractor", out_channels=64, featmap_strides=[4, 8], finest_scale=28)

model = dict(
    type="DenseCLIPMaskRCNN",
    data_preprocessor=dict(
        type="mmdet.DetDataPreprocessor",
        mean=[122.7709, 116.746, 104.0937],
        std=[68.5005, 66.6322, 70.3232],
        bgr_to_rgb=True,
        pad_size_divisor=16,
        pad_mask=True,
    ),
    backbone=dict(weights="tiny", out_indices=(1, 2, 3, 5), norm_cfg=dict(type="GN", num_groups=1)),
    vocabulary=[
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
        "stop sign", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "pig",
        "rabbit", "lion", "tiger", "monkey", "penguin", "fish", "whale", "turtle", "butterfly", "snail", "frog",
        "owl", "bee", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "sports ball", "kite",
        "skateboard", "bottle", "wine glass", "cup", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
        "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "strawberry", "grapes", "watermelon",
        "lemon", "mushroom", "chair", "couch", "potted plant", "bed", "toilet", "tv", "laptop", "mouse", "keyboard",
        "cell phone", "book", "clock", "vase", "scissors", "teddy bear", "toothbrush", "tree", "flower", "cactus",
        "crown", "guitar", "drum", "key", "hammer", "light bulb", "rocket", "star", "helicopter",
    ],
    neck=dict(
        type="FPN",
        in_channels=[256, 256, 256 + 94, 256],
        out_channels=64,
        start_level=1,
        num_outs=3,
        norm_cfg=dict(type="GN", num_groups=8),
    ),
    rpn_head=dict(
        type="RPNHead",
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(type="AnchorGenerator", scales=[4, 6], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16]),
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    roi_head=dict(
        type="StandardRoIHead",
        bbox_roi_extractor=_roi | dict(roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0)),
        bbox_head=dict(
            type="Shared2FCBBoxHead",
            in_channels=64,
            fc_out_channels=256,
            roi_feat_size=7,
            num_classes=94,
            reg_class_agnostic=True,
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type="L1Loss", loss_weight=1.0),
        ),
        mask_roi_extractor=_roi | dict(roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0)),
        mask_head=dict(
            type="FCNMaskHead",
            num_convs=2,
            in_channels=64,
            conv_out_channels=64,
            num_classes=94,
            class_agnostic=True,
            loss_mask=dict(type="CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
            sampler=dict(type="RandomSampler", num=64, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(nms_pre=200, max_per_img=50, nms=_nms, min_bbox_size=0),
        rcnn=dict(
            assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5),
            sampler=dict(type="RandomSampler", num=32, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=True),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=50, nms=_nms, min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20, mask_thr_binary=0.5),
    ),
)  # fmt: skip

train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="SeededSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=_scenes | dict(pipeline=[*_load, dict(type="mmdet.PackDetInputs", meta_keys=_keys[:4])]),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=_scenes
    | dict(
        pipeline=[
            _load[0],
            dict(type="mmdet.Resize", scale=(128, 128)),
            _load[1],
            dict(type="mmdet.PackDetInputs", meta_keys=_keys),
        ]
    ),
)
val_evaluator = dict(type="OpenVocabAP")
val_cfg = dict(type="ValLoop")
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}, norm_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False)]
train_cfg = dict(type="TrainLoop", max_iters=120, val_interval=120)
