"""Composed scenes of 128 px with boxes and masks, enlarged to 160 px.

Training sees the objects of base classes only; 60 held-out scenes with all classes validate, 300 others test.
"""

_read = [  # the truth is that of the picture's own size
    dict(type="LoadScenePicture"),
    dict(type="mmdet.Resize", scale=(160, 160)),
    dict(type="LoadSceneBoxes"),
    dict(type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="SeededSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="SceneBoxes",
            count=100_000,
            split="train",
            first_seed=2_000_000,
            base_only=True,
            pipeline=[
                dict(type="LoadScenePicture"),
                dict(type="LoadSceneBoxes"),
                dict(type="mmdet.Resize", scale=(160, 160)),
                dict(type="mmdet.RandomFlip", prob=0.5),
                dict(type="mmdet.PhotoMetricDistortion"),
                dict(type="mmdet.PackDetInputs"),
            ],
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SceneBoxes",
        count=60,
        first_seed=3_000_000,
        pipeline=_read,
    ),
)
val_evaluator = dict(type="OpenVocabAP")
val_cfg = dict(type="ValLoop")
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(type="SceneBoxes", count=300, pipeline=_read),
)
test_evaluator = dict(type="OpenVocabAP")
test_cfg = dict(type="TestLoop")
