"""CAT-Seg (Cho, Shin et al., CVPR 2024) on the embedded demo model, trained on 60 frames of CamVid.

    python tools/train.py configs/catseg/catseg_tiny_camvid.py
    python tools/test.py configs/catseg/catseg_tiny_camvid.py --benchmark camvid_mini

The model has never seen photographs: what it learns of roads it learns here.
"""

_base_ = ["../_base_/catseg_tiny.py", "../_base_/camvid_mini.py"]

_read = [dict(type="mmseg.LoadImageFromFile"), dict(type="mmseg.LoadAnnotations"), dict(type="mmseg.PackSegInputs")]

model = dict(
    vocabulary="camvid",
    unseen=["sidewalk", "fence", "bicyclist"],
    protocol=dict(
        size=None, short_side=240, window=192, stride=64, view=None, whole_view=False, templates="imagenet_80",
        normalisation="weights",
    ),
)  # fmt: skip
val_dataloader = dict(dataset=dict(pipeline=_read))
test_dataloader = val_dataloader

train_cfg = dict(type="TrainLoop", max_iters=400, val_interval=400)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=380, begin=20, end=400, eta_min=1e-5, by_epoch=False),
]
