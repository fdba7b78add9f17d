"""OV-COCO: boxes of the 48 base classes to train on, all 65 classes to validate; pictures of 640 to 800 px."""

_base_ = "coco_boxes.py"

_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            type="OVCOCO",
            base_only=True,
            filter_cfg=dict(_delete_=True, filter_empty_gt=True),
            pipeline=[
                dict(type="mmdet.LoadImageFromFile"),
                dict(type="mmdet.LoadAnnotations", with_bbox=True),
                dict(
                    type="mmdet.RandomChoiceResize",
                    resize_type="mmdet.Resize",
                    scales=[(side, 1333) for side in range(640, 801, 32)],
                    keep_ratio=True,
                ),
                dict(type="mmdet.RandomFlip", prob=0.5),
                dict(type="mmdet.PackDetInputs"),
            ],
        ),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type="OVCOCO",
        filter_cfg=dict(filter_empty_gt=True),
        test_mode=False,
        pipeline=[
            dict(type="mmdet.LoadImageFromFile"),
            dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
            dict(type="mmdet.LoadAnnotations", with_bbox=True),
            dict(type="mmdet.PackDetInputs", meta_keys=_keys),
        ],
    ),
)
