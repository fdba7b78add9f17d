"""CAT-Seg (Cho, Shin et al., CVPR 2024) on the embedded demo model, trained on 100 pictures of COCO.

    python tools/train.py configs/catseg/catseg_tiny_coco.py
    python tools/test.py configs/catseg/catseg_tiny_coco.py --benchmark coco_mini

The classes are the 133 panoptic ones; cut and read as in catseg_tiny_camvid.py.
"""

_base_ = "catseg_tiny_camvid.py"

model = dict(
    vocabulary="coco_panoptic",
    unseen=[
        "cow", "giraffe", "suitcase", "frisbee", "skateboard", "carrot", "scissors", "cardboard", "road", "river",
        "tree", "grass", "playing field", "wall",
    ],
    scorer=dict(aggregation=dict(prior=0.05)),
)  # fmt: skip
train_dataloader = dict(dataset=dict(dataset=dict(type="COCOMini")))
val_dataloader = dict(dataset=dict(type="COCOMini"))
test_dataloader = dict(dataset=dict(type="COCOMini"))
train_cfg = dict(max_iters=200, val_interval=200)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=180, begin=20, end=200, eta_min=1e-5, by_epoch=False),
]
