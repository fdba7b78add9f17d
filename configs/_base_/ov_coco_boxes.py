"""OV-COCO: boxes of the 48 base classes to train on, all 65 classes to validate; pictures of 640 to 800 px."""

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="SeededSampler"),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="OVCOCO",
            data_root="data/coco",
            ann_file="annotations/instances_train2017.json",
            data_prefix=dict(img="train2017"),
            base_only=True,
            filter_cfg=dict(filter_empty_gt=True),
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
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="OVCOCO",
        data_root="data/coco",
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017"),
        filter_cfg=dict(filter_empty_gt=True),
        test_mode=False,
        pipeline=[
            dict(type="mmdet.LoadImageFromFile"),
            dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
            dict(type="mmdet.LoadAnnotations", with_bbox=True),
            dict(
                type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
            ),
        ],
    ),
)
val_evaluator = dict(type="OpenVocabAP")
val_cfg = dict(type="ValLoop")
