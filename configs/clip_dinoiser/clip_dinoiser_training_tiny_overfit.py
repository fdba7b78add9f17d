"""CLIP-DINOiser's convolutions learn eight frames of CamVid: a smoke test of its training, about a minute.

    python tools/train.py configs/clip_dinoiser/clip_dinoiser_training_tiny_overfit.py

The teacher is the tower's own middle, the saliency ours: nothing is downloaded.
"""

_base_ = ["../_base_/train.py", "../_base_/camvid_mini_overfit.py"]

model = dict(
    type="DinoiserTraining",
    weights="tiny",
    dense=dict(type="CLIPDINOiser"),
    teacher=dict(type="TowerProxy"),
    vocabulary="camvid",
)

train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(type="mmseg.LoadImageFromFile"),
                dict(type="mmseg.Resize", scale=(128, 96), keep_ratio=False),
                dict(type="mmseg.PackSegInputs"),
            ]
        )
    ),
)

# predictions are of the pictures as they are, resized by the protocol
_read = [dict(type=f"mmseg.{step}") for step in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]
val_dataloader = dict(dataset=dict(pipeline=_read))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={"bkg_decoder": dict(lr_mult=10.0)}),
)
param_scheduler = []
train_cfg = dict(type="TrainLoop", max_iters=100, val_interval=100)
