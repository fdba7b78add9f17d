"""The frozen R50-C4 proposal network of RegionCLIP, in MMDetection's modules and detectron2's order of anchors."""

model = dict(
    proposals=dict(
        type="FrozenRPN",
        config=dict(
            type="RPN",
            data_preprocessor=dict(type="DetDataPreprocessor", mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0]),
            backbone=dict(
                type="ResNet",
                depth=50,
                num_stages=3,
                strides=(1, 2, 2),
                dilations=(1, 1, 1),
                out_indices=(2,),
                style="caffe",
                norm_cfg=dict(type="BN", requires_grad=False),
                norm_eval=True,
            ),
            neck=None,
            rpn_head=dict(
                type="RPNHead",
                in_channels=1024,
                feat_channels=1024,
                anchor_generator=dict(
                    type="AnchorGenerator",
                    scales=[2, 4, 8, 16, 32],
                    ratios=[0.5, 1.0, 2.0],
                    strides=[16],
                    scale_major=False,
                ),
                loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True),
                loss_bbox=dict(type="L1Loss"),
            ),
            train_cfg=None,
            test_cfg=dict(
                rpn=dict(nms_pre=6000, max_per_img=1000, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)
            ),
        ),
    ),
)
