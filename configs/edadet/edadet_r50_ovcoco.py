"""EdaDet in our reading (Shi and Yang, ICCV 2023), CLIP's RN50, trained on the 48 base classes of OV-COCO.

    torchrun --nproc_per_node 8 tools/train.py configs/edadet/edadet_r50_ovcoco.py --launcher pytorch

Not a reproduction: there is no public code.  Schedule, layers, weights and exponents are our choice [inferred], and
the paper's query decoder is an RPN here.  Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = ["../_base_/train.py", "../_base_/ov_coco_boxes.py"]

model = dict(
    type="EdaDet",
    weights="RN50/openai",
    vocabulary="ov_coco",
    unseen="ov_coco_novel",
    background=[
        "background",
        "sky",
        "grass",
        "wall",
        "floor",
        "road",
        "water",
        "tree",
        "building",
    ],
    proposals=dict(type="OwnRPN"),
    alpha=0.3,
)

optim_wrapper = dict(optimizer=dict(type="AdamW", lr=2e-4, weight_decay=1e-4), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, begin=0, end=1000, by_epoch=False),
    dict(type="MultiStepLR", milestones=[60_000, 80_000], gamma=0.1, by_epoch=False),
]
train_cfg = dict(type="TrainLoop", max_iters=90_000, val_interval=90_000)
