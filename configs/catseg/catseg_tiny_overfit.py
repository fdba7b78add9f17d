"""Whether CAT-Seg learns: eight composed scenes, enlarged and cut as in catseg_tiny_scenes.py, by heart in 100 steps.

python tools/train.py configs/catseg/catseg_tiny_overfit.py
"""

_base_ = "catseg_tiny_scenes.py"

train_dataloader = dict(batch_size=8, dataset=dict(dataset=dict(count=8)))
val_dataloader = dict(dataset=dict(count=8, first_seed=2_000_000, split="train"))
train_cfg = dict(type="TrainLoop", max_iters=100, val_interval=100)
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False)]
