"""Whether F-ViT learns: eight composed scenes by heart in 60 steps.

python tools/train.py configs/fvit/fvit_tiny_overfit.py
"""

_base_ = "fvit_tiny_scenes.py"

train_dataloader = dict(dataset=dict(dataset=dict(count=8)))
val_dataloader = dict(dataset=dict(count=8, first_seed=2_000_000, split="train", base_only=True))
train_cfg = dict(type="TrainLoop", max_iters=60, val_interval=60)
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=10, by_epoch=False)]
