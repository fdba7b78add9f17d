"""CAT-Seg (Cho, Shin et al., CVPR 2024) on the embedded demo model, trained on 60 frames of CamVid.

    python tools/train.py configs/catseg/catseg_tiny_camvid.py
    python tools/test.py configs/catseg/catseg_tiny_camvid.py --benchmark camvid_mini

The model has never seen photographs: what it learns of them it learns here, in crops of 64 px.
"""

_base_ = ["../_base_/tiny_catseg.py", "../_base_/camvid_mini.py"]

_load = [dict(type="mmseg.LoadImageFromFile"), dict(type="mmseg.LoadAnnotations")]
_augment = [
    dict(type="mmseg.RandomResize", scale=(214, 160), ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="mmseg.RandomCrop", crop_size=(64, 64)),
    dict(type="Pad", size=(64, 64), pad_val=dict(img=(104, 117, 123), seg=255)),
    dict(type="mmseg.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
_read = [*_load, dict(type="mmseg.PackSegInputs")]

model = dict(
    vocabulary="camvid",
    unseen=["sidewalk", "fence", "bicyclist"],
    scorer=dict(aggregation=dict(prior=0.12)),
    protocol=dict(
        size=None, short_side=160, window=64, stride=32, view=None, whole_view=False, templates="imagenet_80",
        normalization="weights",
    ),
)  # fmt: skip
train_dataloader = dict(batch_size=32, dataset=dict(dataset=dict(pipeline=_load + _augment)))
val_dataloader = dict(dataset=dict(pipeline=_read, indices=20))
test_dataloader = dict(dataset=dict(pipeline=_read))

optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(type="TrainLoop", max_iters=400, val_interval=400)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=380, begin=20, end=400, eta_min=1e-5, by_epoch=False),
]
