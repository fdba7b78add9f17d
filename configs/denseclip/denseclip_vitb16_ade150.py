"""DenseCLIP with CLIP's ViT-B/16 on ADE20K, by the published recipe; see denseclip_r50_ade150.py.

    torchrun --nproc_per_node 8 tools/train.py configs/denseclip/denseclip_vitb16_ade150.py --launcher pytorch

Taps behind blocks 3, 5, 7 and 11 (from 0), position table of 40×40 patches.
"""

_base_ = ["../_base_/train.py", "../_base_/ade150_640.py"]

sync_bn = "torch"
model = dict(
    type="DenseCLIP",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[122.7709, 116.746, 104.0937],
        std=[68.5005, 66.6322, 70.3232],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(640, 640),
    ),
    backbone=dict(weights="ViT-B-16/openai", out_indices=(3, 5, 7, 11), position_size=640),
    vocabulary="ade150",
    class_tokens=5,
    context_tokens=8,
    context_decoder=dict(width=256, heads=4, layers=3, dropout=0.1),
    score_level=2,
    gamma=1e-4,
    tau=0.07,
    score_weight=0.4,
    neck=dict(type="FPN", in_channels=[768, 768, 768 + 150, 768], out_channels=256, num_outs=4),
    decode_head=dict(
        type="FPNHead",
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="slide", crop_size=(640, 640), stride=(426, 426)),
)

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}, norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=1500, end=80000),
]
train_cfg = dict(type="TrainLoop", max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000), logger=dict(interval=50))
