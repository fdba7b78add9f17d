"""DenseCLIP's Mask R-CNN learns four composed scenes by heart: a smoke test of its training.

    python tools/train.py configs/denseclip/denseclip_maskrcnn_tiny_overfit.py

Pyramid of strides 4, 8 and 16 on the embedded demo model; all 94 objects are known (a closed-set method).
"""

_base_ = "denseclip_maskrcnn_r50_coco.py"

_load = [dict(type="LoadScenePicture"), dict(type="LoadSceneBoxes")]
_scenes = dict(type="SceneBoxes", count=4, split="train", first_seed=2_000_000)
_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
_roi = dict(out_channels=64, featmap_strides=[4, 8], finest_scale=28)

model = dict(
    data_preprocessor=dict(pad_size_divisor=16),
    backbone=dict(_delete_=True, weights="tiny", out_indices=(1, 2, 3, 5), norm_cfg=dict(type="GN", num_groups=1)),
    vocabulary="scene_objects",
    score_level=2,
    neck=dict(
        _delete_=True,
        type="FPN",
        in_channels=[256, 256, 256 + 94, 256],
        out_channels=64,
        start_level=1,
        num_outs=3,
        norm_cfg=dict(type="GN", num_groups=8),
    ),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4, 6], strides=[4, 8, 16])),
    roi_head=dict(
        bbox_roi_extractor=_roi,
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=94, reg_class_agnostic=True),
        mask_roi_extractor=_roi,
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=64, num_classes=94, class_agnostic=True),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=50),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50), rcnn=dict(max_per_img=20)),
)

train_dataloader = dict(
    _delete_=True,
    batch_size=4,
    num_workers=0,
    sampler=dict(type="SeededSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=_scenes | dict(pipeline=[*_load, dict(type="mmdet.PackDetInputs", meta_keys=_keys[:4])]),
    ),
)
_val = dict(
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
val_dataloader = dict(_delete_=True, **_val)
test_dataloader = _val
test_evaluator = dict(type="OpenVocabAP")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}, norm_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=200), logger=dict(interval=20))
train_cfg = dict(type="TrainLoop", max_iters=120, val_interval=120)
