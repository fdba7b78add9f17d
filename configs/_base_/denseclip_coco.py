"""DenseCLIP's published recipe on COCO, 12 epochs; the detector is named by the configs.

What trains: all of the image tower (learning rate × 0.1), contexts, decoder, FPN and heads; the text tower is frozen.
"""

_base_ = ["train.py", "coco_boxes.py"]

model = dict(
    data_preprocessor=dict(
        type="mmdet.DetDataPreprocessor",
        mean=[122.7709, 116.746, 104.0937],
        std=[68.5005, 66.6322, 70.3232],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(weights="RN50/openai", position_size=1344),
    vocabulary="coco_things",
    class_tokens=5,
    context_tokens=8,
    context_decoder=dict(width=256, heads=4, layers=3, dropout=0.1),
    gamma=1e-4,
    tau=0.07,
    score_weight=1.0,
    score_level=3,
    neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048 + 80], out_channels=256, num_outs=5),
)

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}, norm_decay_mult=0.0),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", milestones=[58_640, 80_630], gamma=0.1, by_epoch=False),  # epochs 8 and 11
]
train_cfg = dict(type="TrainLoop", max_iters=87_960, val_interval=7330)
default_hooks = dict(checkpoint=dict(interval=7330), logger=dict(interval=50))
