"""DenseCLIP (Rao et al., CVPR 2022) on the embedded demo model and composed scenes, all 112 classes known.

    python tools/train.py configs/denseclip/denseclip_tiny_scenes.py

A closed-set method: no class is hidden from training, and at test time it chooses among all of them.
"""

_base_ = ["../_base_/tiny_denseclip.py", "../_base_/scenes.py"]

model = dict(
    vocabulary="scenes",
    neck=dict(in_channels=[256, 256, 256 + 112, 256]),
    decode_head=dict(num_classes=112),
)
train_dataloader = dict(batch_size=4)
val_dataloader = dict(dataset=dict(candidates="full"))
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ComposedScenes", candidates="full", count=300),
)
test_evaluator = dict(type="OpenVocabIoU")
test_cfg = dict(type="TestLoop")
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=50, end=1600),
]
train_cfg = dict(type="TrainLoop", max_iters=1600, val_interval=800)
