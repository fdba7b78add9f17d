"""F-ViT (in CLIPSelf, Wu et al., ICLR 2024) on the embedded demo model: Mask R-CNN for composed scenes, trained on the
boxes and masks of base classes; at test it chooses among all 94 objects.

    python tools/train.py configs/fvit/fvit_tiny_scenes.py
    python tools/test.py configs/fvit/fvit_tiny_scenes.py --checkpoint CHECKPOINT
    … --cfg-options model.vlm=False                     # the detector's own scores alone

Pictures of 128 px are enlarged to 160 px.  Objects are 26 to 60 px of 128, hence three levels and two sizes of anchors.
"""

_base_ = ["../_base_/train.py", "../_base_/scene_boxes.py"]

model = dict(
    type="FViT",
    weights="tiny",
    vocabulary="scene_objects",
    unseen="scene_objects_novel",
    masks=True,
    background="learned",
    backbone=dict(scales=(0.5, 1, 2), norm_cfg=dict(type="GN", num_groups=1)),
    neck=dict(out_channels=64, num_outs=3, norm_cfg=dict(type="GN", num_groups=8)),
    rpn_head=dict(
        in_channels=64, feat_channels=64, num_convs=1, anchor_generator=dict(scales=[6, 9], strides=[4, 8, 16])
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28),
        bbox_head=dict(
            in_channels=64, conv_out_channels=64, fc_out_channels=256, num_shared_convs=2, num_shared_fcs=0,
            norm_cfg=dict(type="GN", num_groups=8),
        ),
        mask_roi_extractor=dict(out_channels=64, finest_scale=28),
        mask_head=dict(in_channels=64, conv_out_channels=64, num_convs=2),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=400, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=100), rcnn=dict(score_thr=0.001, nms=dict(iou_threshold=0.5))),
    alpha=0.1,
    beta=0.8,
)  # fmt: skip
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-2),
    clip_grad=dict(max_norm=5.0),
)
train_cfg = dict(type="TrainLoop", max_iters=900, val_interval=450)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=850, begin=50, end=900, eta_min=1e-5, by_epoch=False),
]
