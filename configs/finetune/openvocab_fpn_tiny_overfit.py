"""A semantic FPN whose last layer is words learns eight composed scenes by heart; ``set_classes`` changes its words.

    python tools/train.py configs/finetune/openvocab_fpn_tiny_overfit.py

    from ovseg.segmentors import set_classes
    set_classes(model, ["bus", "owl", "grass", "sky"])

Scenes and not CamVid, because the embedded model has one and the same embedding for words it has never learned
(building, pole, sidewalk and pedestrian among them).
"""

_base_ = ["../_base_/tiny_finetune.py", "../_base_/scenes.py"]

_eight = dict(count=8, split="train", first_seed=2_000_000)

model = dict(
    neck=dict(type="FPN", in_channels=[256, 256, 256, 256], out_channels=64, num_outs=4),
    decode_head=dict(
        type="ovseg.OpenVocabHead",
        vocabulary="scenes",
        weights="tiny",
        head=dict(
            type="FPNHead",
            in_channels=[64, 64, 64, 64],
            in_index=[0, 1, 2, 3],
            feature_strides=[2, 4, 8, 16],
            channels=64,
            dropout_ratio=0.0,
            norm_cfg=dict(type="GN", num_groups=8),
            align_corners=False,
            loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True),
        ),
    ),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(dataset=dict(_eight, pipeline=[dict(type="LoadScene"), dict(type="mmseg.PackSegInputs")])),
)
val_dataloader = dict(dataset=dict(_eight, candidates="full"))
test_dataloader = val_dataloader
test_evaluator = dict(type="OpenVocabIoU")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(optimizer=dict(lr=2e-3), paramwise_cfg=dict(rate=0.85))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=20),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=20, end=300),
]
train_cfg = dict(type="TrainLoop", max_iters=300, val_interval=300)
