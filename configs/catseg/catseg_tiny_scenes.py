"""CAT-Seg (Cho, Shin et al., CVPR 2024) on the embedded demo model, trained on composed scenes.

    python tools/train.py configs/catseg/catseg_tiny_scenes.py
    python tools/test.py configs/catseg/catseg_tiny_scenes.py --benchmark scenes_seen_v20 scenes_unseen_v20

A small aggregation (32 channels) on the 16×16 grid of whole scenes; 20 classes of each picture enter the loss.  The
text tower stays as it is, so its words are encoded once.
"""

_base_ = ["../_base_/train.py", "../_base_/scenes.py"]

_unseen = [
    "car", "truck", "cat", "elephant", "rabbit", "fish", "frog", "handbag", "sports ball", "cup", "apple", "hot dog",
    "grapes", "couch", "laptop", "clock", "tree", "drum", "star", "sea", "stone wall", "tiles", "leaves",
]  # fmt: skip

model = dict(
    type="CATSeg",
    weights="tiny",
    vocabulary="scenes",
    unseen=_unseen,
    dense=dict(type="CATSeg"),
    scorer=dict(
        type="CostScore",
        scratch=True,
        width=256,
        aggregation=dict(
            hidden=32, window=8, embed_dim=256, text=32, appearance=32, guidance=(64, 32), projected=(16, 8),
            decoder=(32, 16), pad_len=0,
        ),
    ),
    tuning=[dict(type="QV"), dict(type="Positions")],
    train_classes=20,
    ignore="skip",
    protocol=dict(
        size=None, short_side=128, window=None, view=None, whole_view=False, templates="imagenet_80",
        normalisation="weights",
    ),
)  # fmt: skip

train_cfg = dict(type="TrainLoop", max_iters=900, val_interval=300)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"pipeline.tower": dict(lr_mult=0.05)}, norm_decay_mult=0.0),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=850, begin=50, end=900, eta_min=1e-5, by_epoch=False),
]
