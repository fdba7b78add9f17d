"""PixelCLIP learns the superpixels of eight frames of CamVid by heart: a smoke test of its training, some two minutes.

python tools/train.py configs/pixelclip/pixelclip_tiny_overfit.py
"""

_base_ = ["../_base_/train.py", "../_base_/camvid_mini_overfit.py"]

model = dict(
    type="PixelCLIPTraining",
    weights="tiny",
    dense=dict(type="PixelCLIP"),
    vocabulary="camvid",
    clusters=16,
    mask_size=64,
    resolution=96,
)

train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(type="mmseg.LoadImageFromFile"),
                dict(type="mmseg.Resize", scale=(128, 128), keep_ratio=False),
                dict(type="MakeRegions", source=dict(type="Superpixels", count=30)),
                dict(type="StrongView"),
                dict(type="PackMapInputs", fields=("gt_regions", "student_view")),
            ]
        )
    ),
)

# predictions are of the pictures as they are, resized by the protocol
_read = [dict(type=f"mmseg.{step}") for step in ("LoadImageFromFile", "LoadAnnotations", "PackSegInputs")]
val_dataloader = dict(dataset=dict(pipeline=_read))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys={"pipeline.tower": dict(lr_mult=0.01), "names": dict(lr_mult=10.0)},
    ),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = []
train_cfg = dict(type="TrainLoop", max_iters=100, val_interval=100)
