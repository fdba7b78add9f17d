"""UPerNet on the embedded model's image tower learns eight frames of CamVid by heart: some two minutes on one core.

python tools/train.py configs/finetune/upernet_tiny_overfit.py
"""

_base_ = ["../_base_/tiny_finetune.py", "../_base_/camvid_mini_overfit.py"]

# 1/√frequency of a class: mIoU counts classes, not pixels
_weights = [0.8, 0.7, 3.7, 0.8, 1.5, 1.0, 3.2, 4.6, 1.2, 5.0, 4.0]
model = dict(
    decode_head=dict(
        type="UPerHead",
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=48,
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=dict(type="GN", num_groups=8),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", class_weight=_weights),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=2e-3), paramwise_cfg=dict(rate=0.85))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=20, end=300),
]
train_cfg = dict(type="TrainLoop", max_iters=300, val_interval=300)
