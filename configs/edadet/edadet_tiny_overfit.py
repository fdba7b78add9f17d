"""EdaDet in our reading (Shi and Yang, ICCV 2023): whether it learns eight composed scenes by heart in 60 steps.

python tools/train.py configs/edadet/edadet_tiny_overfit.py
"""

_base_ = "../_base_/tiny_regionclip.py"

model = dict(
    type="EdaDet",
    weights="configs/regionclip/tiny_rn.safetensors",
    unseen="scene_objects_novel",
    background=[
        "grass", "sky", "sea", "sand", "snow", "brick wall", "stone wall", "wood floor", "road", "gravel", "tiles",
        "rug", "curtain", "dirt", "leaves", "fence", "blanket", "metal",
    ],
    proposals=dict(type="OwnRPN", width=64, outs=3, scales=(6, 9), count=100, train_count=200),
    refiner=dict(width=64),
)  # fmt: skip
train_dataloader = dict(dataset=dict(dataset=dict(count=8)))
val_dataloader = dict(dataset=dict(count=8, first_seed=2_000_000, split="train", base_only=True))
train_cfg = dict(type="TrainLoop", max_iters=60, val_interval=60)
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=10, by_epoch=False)]
