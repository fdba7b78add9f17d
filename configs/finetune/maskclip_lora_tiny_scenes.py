"""A training-free method made better by a few parameters: MaskCLIP on composed scenes with LoRA of rank 8.

    python tools/train.py configs/finetune/maskclip_lora_tiny_scenes.py
    python tools/test.py configs/finetune/maskclip_lora_tiny_scenes.py --benchmark scenes_seen_v20 scenes_unseen_v20

Any other method and preset goes here as well: ``dense=dict(type="NACLIP")``, ``tuning=[dict(type="SingularValues")]``.
Crops of 64 px of scenes enlarged to 160 px, the classes of ``ovseg.datasets.splits`` hidden.
"""

_base_ = ["../_base_/train.py", "../_base_/scene_crops.py"]

model = dict(
    type="DenseTuning",
    weights="tiny",
    dense=dict(type="MaskCLIP"),
    vocabulary="scenes",
    unseen="scenes_unseen",
    tuning=[dict(type="LoRA", rank=8)],
    protocol=dict(size=None, short_side=160, window=64, stride=32, templates="imagenet_80", normalization="weights"),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=280, begin=20, end=300, eta_min=1e-5, by_epoch=False),
]
train_cfg = dict(type="TrainLoop", max_iters=300, val_interval=300)
