"""DenseCLIP's RetinaNet learns four composed scenes by heart: a smoke test of its training.

python tools/train.py configs/denseclip/denseclip_retinanet_tiny_overfit.py
"""

_base_ = "denseclip_maskrcnn_tiny_overfit.py"

model = dict(
    _delete_=True,
    type="DenseCLIPRetinaNet",
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    vocabulary={{_base_.model.vocabulary}},
    neck={{_base_.model.neck}},
    bbox_head=dict(
        type="RetinaHead",
        num_classes=94,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        anchor_generator=dict(
            type="AnchorGenerator", octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16]
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
        nms_pre=200, min_bbox_size=0, score_thr=0.05, nms=dict(type="nms", iou_threshold=0.5), max_per_img=20
    ),
)
val_evaluator = dict(segm=False)
