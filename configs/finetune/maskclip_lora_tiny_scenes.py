"""A training-free method made better by a few parameters: MaskCLIP on composed scenes with LoRA of rank 8.

    python tools/train.py configs/finetune/maskclip_lora_tiny_scenes.py
    python tools/test.py configs/finetune/maskclip_lora_tiny_scenes.py --benchmark scenes_seen_v20 scenes_unseen_v20

Any other method and preset goes here as well: ``dense=dict(type="NACLIP")``, ``tuning=[dict(type="SingularValues")]``.
Crops of 64 px of scenes enlarged to 160 px, the classes of ``ovseg.datasets.splits`` hidden.
"""

_base_ = ["../_base_/train.py", "../_base_/scenes.py"]

model = dict(
    type="DenseTuning",
    weights="tiny",
    dense=dict(type="MaskCLIP"),
    vocabulary="scenes",
    unseen=[
        "car", "truck", "cat", "elephant", "rabbit", "fish", "frog", "handbag", "sports ball", "cup", "apple",
        "hot dog", "grapes", "couch", "laptop", "clock", "tree", "drum", "star", "sea", "stone wall", "tiles", "leaves",
    ],
    tuning=[dict(type="LoRA", rank=8)],
    protocol=dict(size=None, short_side=160, window=64, stride=32, templates="imagenet_80", normalisation="weights"),
)  # fmt: skip
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(type="LoadScene"),
                dict(type="mmseg.Resize", scale=(160, 160)),
                dict(type="mmseg.RandomCrop", crop_size=(64, 64)),
                dict(type="mmseg.RandomFlip", prob=0.5),
                dict(type="mmseg.PhotoMetricDistortion"),
                dict(type="mmseg.PackSegInputs"),
            ]
        )
    ),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=280, begin=20, end=300, eta_min=1e-5, by_epoch=False),
]
train_cfg = dict(type="TrainLoop", max_iters=300, val_interval=300)
