"""DenseCLIP on the embedded demo model, for CamVid; learning rates for runs of a few minutes.

GroupNorm where the paper has BatchNorm: with a handful of small pictures per step the statistics of a batch say little.
"""

_base_ = "denseclip.py"

model = dict(
    data_preprocessor=dict(size_divisor=16),
    backbone=dict(weights="tiny", out_indices=(1, 2, 3, 5), norm_cfg=dict(type="GN", num_groups=1)),
    vocabulary="camvid",
    neck=dict(in_channels=[256, 256, 256 + 11, 256], out_channels=64),
    decode_head=dict(
        in_channels=[64, 64, 64, 64],
        feature_strides=[2, 4, 8, 16],
        channels=64,
        num_classes=11,
        norm_cfg=dict(type="GN", num_groups=8),
    ),
    test_cfg=dict(mode="whole"),
)

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.2)}, norm_decay_mult=0.0),
)
