"""CAT-Seg (Cho, Shin et al., CVPR 2024) on the embedded demo model, trained on composed scenes.

    python tools/train.py configs/catseg/catseg_tiny_scenes.py
    python tools/test.py configs/catseg/catseg_tiny_scenes.py --benchmark scenes_seen_v20 scenes_unseen_v20

Crops of 64 px of scenes enlarged to 160 px: the pictures the model was made for, and its windows in prediction.

The features are not the paper's: value-value attention of all six blocks, without residuals and feed-forwards, suit
the embedded model better than the value path of its last block (42 against 28 mIoU before any training, 60 scenes).
"""

_base_ = ["../_base_/tiny_catseg.py", "../_base_/scenes.py"]

model = dict(
    dense=dict(relations=("vv",), residual=False, ffn=False, last_n=6),
    vocabulary="scenes",
    unseen=[
        "car", "truck", "cat", "elephant", "rabbit", "fish", "frog", "handbag", "sports ball", "cup", "apple",
        "hot dog", "grapes", "couch", "laptop", "clock", "tree", "drum", "star", "sea", "stone wall", "tiles", "leaves",
    ],
    protocol=dict(
        size=None, short_side=160, window=64, stride=32, view=None, whole_view=False, templates="imagenet_80",
        normalisation="weights",
    ),
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
train_cfg = dict(type="TrainLoop", max_iters=750, val_interval=375)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=730, begin=20, end=750, eta_min=1e-5, by_epoch=False),
]
