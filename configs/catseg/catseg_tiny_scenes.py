"""CAT-Seg (Cho, Shin et al., CVPR 2024) on the embedded demo model, trained on composed scenes.

    python tools/train.py configs/catseg/catseg_tiny_scenes.py
    python tools/test.py configs/catseg/catseg_tiny_scenes.py --benchmark scenes_seen_v20 scenes_unseen_v20

Crops of 64 px of scenes enlarged to 160 px: the pictures the model was made for, and its windows in prediction.

The features are not the paper's: value-value attention of all six blocks, without residuals and feed-forwards, suit
the embedded model better than the value path of its last block.
"""

_base_ = ["../_base_/tiny_catseg.py", "../_base_/scene_crops.py"]

model = dict(
    dense=dict(relations=("vv",), residual=False, ffn=False, last_n=6),
    vocabulary="scenes",
    unseen="scenes_unseen",
    protocol=dict(
        size=None,
        short_side=160,
        window=64,
        stride=32,
        view=None,
        whole_view=False,
        templates="imagenet_80",
        normalization="weights",
    ),
)

train_cfg = dict(type="TrainLoop", max_iters=750, val_interval=375)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=730, begin=20, end=750, eta_min=1e-5, by_epoch=False),
]
