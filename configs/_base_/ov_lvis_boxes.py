"""OV-LVIS: boxes and masks of the 866 frequent and common classes to train on, all 1,203 to validate; 640 to 800 px.

Needs the package lvis.  rare.txt names the 337 rare classes, one per line, as the vocabulary spells them.
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
            type="mmdet.ClassBalancedDataset",
            oversample_thr=1e-3,
            dataset=dict(
                type="OVLVIS",
                data_root="data/lvis_v1",
                ann_file="annotations/lvis_v1_train.json",
                data_prefix=dict(img=""),
                base_only=True,
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=[
                    dict(type="mmdet.LoadImageFromFile"),
                    dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
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
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="OVLVIS",
        data_root="data/lvis_v1",
        ann_file="annotations/lvis_v1_val.json",
        data_prefix=dict(img=""),
        test_mode=True,
        pipeline=[
            dict(type="mmdet.LoadImageFromFile"),
            dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
            dict(type="mmdet.PackDetInputs", meta_keys=_keys),
        ],
    ),
)
val_evaluator = dict(
    type="mmdet.LVISMetric", ann_file="data/lvis_v1/annotations/lvis_v1_val.json", metric=["bbox", "segm"]
)
val_cfg = dict(type="ValLoop")
