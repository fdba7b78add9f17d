"""DenseCLIP's published recipe on ADE20K."""

_base_ = "denseclip.py"

sync_bn = "torch"
model = dict(
    vocabulary="ade150",
    class_tokens=5,
    context_tokens=8,
    context_decoder=dict(width=256, heads=4, layers=3, dropout=0.1),
    gamma=1e-4,
    tau=0.07,
    score_weight=0.4,
    neck=dict(out_channels=256),
    decode_head=dict(
        in_channels=[256, 256, 256, 256],
        feature_strides=[4, 8, 16, 32],
        channels=256,
        num_classes=150,
        norm_cfg=dict(type="BN"),
    ),
    test_cfg=dict(mode="slide"),
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
