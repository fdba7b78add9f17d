"""Composed scenes of 128×128 px: as many as a run asks for to train, in seen styles; 60 others to validate.

The unseen classes are those of ``ovseg.datasets.splits``; a training picture may hold them, as pixels without a class.
"""

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="SeededSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="ComposedScenes",
            count=100_000,
            split="train",
            first_seed=2_000_000,
            pipeline=[
                dict(type="LoadScene"),
                dict(type="mmseg.RandomFlip", prob=0.5),
                dict(type="mmseg.PhotoMetricDistortion"),
                dict(type="mmseg.PackSegInputs"),
            ],
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(type="ComposedScenes", candidates="v20", count=60, first_seed=3_000_000),
)
val_evaluator = dict(type="OpenVocabIoU")
val_cfg = dict(type="ValLoop")
