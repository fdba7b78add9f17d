"""UPerNet on the embedded model's image tower, fine-tuned on 60 frames of CamVid.

python tools/train.py configs/finetune/upernet_tiny_camvid.py
"""

_base_ = ["../_base_/tiny_finetune.py", "../_base_/camvid_mini.py"]

model = dict(
    decode_head=dict(
        type="UPerHead",
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=48,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=dict(type="GN", num_groups=8),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=50, end=600),
]
train_cfg = dict(type="TrainLoop", max_iters=600, val_interval=300)
