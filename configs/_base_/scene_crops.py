"""Crops of 64 px of composed scenes enlarged to 160 px: what the demo model was made for."""

_base_ = "scenes.py"

train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(type="LoadScene"),
                dict(type="mmseg.Resize", scale=(160, 160)),
                dict(type="mmseg.RandomCrop", crop_size=(64, 64)),
                dict(type="mmseg.RandomFlip", prob=0.5),
                dict(type="mmseg.PhotoMetricDistortion"),
                dict(type="mmseg.PackSegInputs"),
            ]
        )
    ),
)
