"""DenseCLIP on the embedded demo model, for CamVid; learning rates for runs of a few minutes.

GroupNorm where the paper has BatchNorm: with a handful of small pictures per step the statistics of a batch say little.
"""

_base_ = "train.py"

model = dict(
    type="DenseCLIP",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[122.7709, 116.746, 104.0937],
        std=[68.5005, 66.6322, 70.3232],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=16,
    ),
    backbone=dict(weights="tiny", out_indices=(1, 2, 3, 5), norm_cfg=dict(type="GN", num_groups=1)),
    vocabulary="camvid",
    neck=dict(type="FPN", in_channels=[256, 256, 256 + 11, 256], out_channels=64, num_outs=4),
    decode_head=dict(
        type="FPNHead",
        in_channels=[64, 64, 64, 64],
        in_index=[0, 1, 2, 3],
        feature_strides=[2, 4, 8, 16],
        channels=64,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=dict(type="GN", num_groups=8),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.2)}, norm_decay_mult=0.0),
)
