"""DenseCLIP (Rao et al., CVPR 2022): RetinaNet with CLIP's RN50 on COCO, by the published recipe.

    torchrun --nproc_per_node 8 tools/train.py configs/denseclip/denseclip_retinanet_r50_coco.py --launcher pytorch

Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = "../_base_/denseclip_coco.py"

model = dict(
    type="DenseCLIPRetinaNet",
    neck=dict(start_level=1, add_extra_convs="on_input"),
    bbox_head=dict(
        type="RetinaHead",
        num_classes=80,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        anchor_generator=dict(
            type="AnchorGenerator",
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128],
        ),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="L1Loss", loss_weight=1.0),
    ),
    train_cfg=dict(
        assigner=dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
        sampler=dict(type="PseudoSampler"),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
val_evaluator = dict(segm=False)
