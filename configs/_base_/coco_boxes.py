"""COCO 2017, boxes and masks of all 80 classes; pictures of 800 px, long side 1333 at most.

Two pictures per process; eight processes make the batch of 16 that schedules of 12 epochs are made for.
"""

_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="SeededSampler"),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="mmdet.CocoDataset",
            data_root="data/coco",
            ann_file="annotations/instances_train2017.json",
            data_prefix=dict(img="train2017"),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                dict(type="mmdet.LoadImageFromFile"),
                dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
                dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
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
        type="mmdet.CocoDataset",
        data_root="data/coco",
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017"),
        test_mode=True,
        pipeline=[
            dict(type="mmdet.LoadImageFromFile"),
            dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
            dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
            dict(type="mmdet.PackDetInputs", meta_keys=_keys),
        ],
    ),
)
val_evaluator = dict(type="OpenVocabAP")
val_cfg = dict(type="ValLoop")
