"""The frozen R50-FPN proposal network of RegionCLIP, in MMDetection's modules and detectron2's order of anchors."""

model = dict(
    proposals=dict(
        type="FrozenRPN",
        config=dict(
            type="RPN",
            data_preprocessor=dict(type="DetDataPreprocessor", mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0]),
            backbone=dict(
                type="ResNet", depth=50, style="caffe", norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True
            ),
            neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
            rpn_head=dict(
                type="RPNHead",
                in_channels=256,
                feat_channels=256,
                anchor_generator=dict(
                    type="AnchorGenerator",
                    scales=[8],
                    ratios=[0.5, 1.0, 2.0],
                    strides=[4, 8, 16, 32, 64],
                    scale_major=False,
                ),
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True),
                loss_bbox=dict(type="L1Loss"),
            ),
            train_cfg=None,
            test_cfg=dict(
                rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)
            ),
        ),
    ),
)
