"""Whether CLIPSelf learns: eight composed scenes, as in clipself_tiny_scenes.py, by heart in 40 steps.

python tools/train.py configs/clipself/clipself_tiny_overfit.py
"""

_base_ = "clipself_tiny_scenes.py"

train_dataloader = dict(batch_size=8, dataset=dict(dataset=dict(count=8)))
val_dataloader = dict(dataset=dict(count=8, first_seed=2_000_000, split="train"))
train_cfg = dict(type="TrainLoop", max_iters=40, val_interval=40)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = [dict(type="LinearLR", start_factor=0.01, begin=0, end=10, by_epoch=False)]
