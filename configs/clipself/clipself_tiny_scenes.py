"""CLIPSelf (Wu et al., ICLR 2024) on the embedded demo model and composed scenes: no labels, ten minutes on two cores.

    python tools/train.py configs/clipself/clipself_tiny_scenes.py
    python tools/export.py configs/clipself/clipself_tiny_scenes.py CHECKPOINT clipself.safetensors
    ovseg predict demo/scene.png -m clipself --weights clipself.safetensors -c "bus, owl, tree, grass, sky"

The student sees scenes enlarged to 160 px whole, the teacher their cells at the 64 px it was made for; grids have at
most 4 × 4 cells, about the size of the objects.  Features of whole pictures are what is trained, hence the protocol.
"""

_base_ = ["../_base_/train.py", "../_base_/scenes.py"]

model = dict(
    type="CLIPSelf",
    weights="tiny",
    dense=dict(type="CLIPSelf"),
    vocabulary="scenes",
    protocol=dict(size=None, short_side=160, window=None, templates="imagenet_80", normalization="weights"),
    max_split=4,
    most=16,
    share=0.7,
)

train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(type="LoadScene"),
                dict(type="mmseg.Resize", scale=(160, 160)),
                dict(type="mmseg.RandomFlip", prob=0.5),
                dict(type="mmseg.PackSegInputs"),
            ]
        )
    ),
)
train_cfg = dict(type="TrainLoop", max_iters=320, val_interval=160)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=0.1, betas=(0.9, 0.98)),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=300, begin=20, end=320, eta_min=0.0, by_epoch=False),
]
