"""RegionCLIP's pre-training (Zhong et al., CVPR 2022) of the small demo ResNet on composed scenes.

    python tools/train.py configs/regionclip/regionclip_pretrain_tiny_scenes.py
    python tools/export.py configs/regionclip/regionclip_pretrain_tiny_scenes.py CHECKPOINT tuned.safetensors --half

Regions are random boxes, concepts all words of the scenes, captions name the objects; no box and no label is read.
Validation names the ground-truth boxes of held-out scenes, base and novel classes alike.
"""

_base_ = "../_base_/tiny_regionclip.py"

model = dict(
    type="RegionCLIPPretraining",
    weights="configs/regionclip/tiny_rn.safetensors",
    concepts="scenes",
    proposals=dict(type="RandomBoxes", count=16, smallest=0.15),
    most=16,
)
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        dataset=dict(
            base_only=False,
            pipeline=[
                dict(type="LoadScenePicture"),
                dict(type="LoadSceneBoxes"),
                dict(type="CaptionFromLabels"),
                dict(type="mmdet.Resize", scale=(192, 192)),
                dict(type="mmdet.RandomFlip", prob=0.5),
                dict(type="mmdet.PhotoMetricDistortion"),
                dict(type="mmdet.PackDetInputs", meta_keys=("img_shape", "scale_factor", "gt_caption")),
            ],
        ),
    ),
)
val_evaluator = dict(type="BoxAccuracy")
test_evaluator = val_evaluator
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=3e-5, weight_decay=1e-4), paramwise_cfg=dict(custom_keys={"tower": dict(lr_mult=1)})
)
train_cfg = dict(type="TrainLoop", max_iters=400, val_interval=200)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=380, begin=20, end=400, eta_min=1e-7, by_epoch=False),
]
