"""RegionCLIP (Zhong et al., CVPR 2022), RN50x4, fine-tuned on the 866 base classes of LVIS, by the published recipe.

    torchrun --nproc_per_node 8 tools/train.py configs/regionclip/regionclip_r50x4_ovlvis.py --launcher pytorch

2 pictures per process; eight processes make the paper's batch of 16.  Regions are 18×18 (a table of 9×9); masks come
from a class-agnostic head.  rare.txt names the 337 rare classes, one per line, as the vocabulary spells them.  The
proposal network is an R50-FPN trained on the base classes (the published one with two convolutions, SyncBN and
large-scale jittering has rpn_head.num_convs=2 and norm_cfg in the neck).  Needs the package lvis.  Published AP: rare
22.0, all 32.3.  Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = ["../_base_/train.py", "../_base_/frozen_rpn_r50_fpn.py"]

model = dict(
    type="RegionCLIP",
    weights="checkpoints/regionclip_pretrained-cc_rn50x4.pth",
    vocabulary="lvis",
    unseen="data/lvis_v1/rare.txt",
    proposals=dict(
        checkpoint="checkpoints/rpn_lvis_866.safetensors",
        nms=0.7,
        count=1000,
    ),
    setting="lvis",
    background=0.8,
    gamma=0.0,
    masks=True,
)

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="SeededSampler"),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="mmdet.ClassBalancedDataset",
            oversample_thr=1e-3,
            dataset=dict(
                type="mmdet.LVISV1Dataset",
                data_root="data/lvis_v1",
                ann_file="annotations/lvis_v1_train.json",
                data_prefix=dict(img=""),
                filter_cfg=dict(filter_empty_gt=True),
                pipeline=[
                    dict(type="mmdet.LoadImageFromFile"),
                    dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
                    dict(
                        type="mmdet.RandomChoiceResize",
                        resize_type="mmdet.Resize",
                        scales=[(side, 1333) for side in range(640, 801, 32)],
                        keep_ratio=True,
                    ),
                    dict(type="mmdet.RandomFlip", prob=0.5),
                    dict(type="mmdet.PackDetInputs"),
                ],
            ),
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="mmdet.LVISV1Dataset",
        data_root="data/lvis_v1",
        ann_file="annotations/lvis_v1_val.json",
        data_prefix=dict(img=""),
        test_mode=True,
        pipeline=[
            dict(type="mmdet.LoadImageFromFile"),
            dict(type="mmdet.Resize", scale=(1333, 800), keep_ratio=True),
            dict(
                type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
            ),
        ],
    ),
)
val_evaluator = dict(
    type="mmdet.LVISMetric", ann_file="data/lvis_v1/annotations/lvis_v1_val.json", metric=["bbox", "segm"]
)
val_cfg = dict(type="ValLoop")

optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.002, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, begin=0, end=5000, by_epoch=False),
    dict(type="MultiStepLR", milestones=[120_000, 160_000], gamma=0.1, by_epoch=False),
]
train_cfg = dict(type="TrainLoop", max_iters=180_000, val_interval=180_000)
