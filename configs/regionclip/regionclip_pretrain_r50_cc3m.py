"""RegionCLIP's pre-training (Zhong et al., CVPR 2022) with CLIP's RN50 on CC3M, by the published recipe.

    torchrun --nproc_per_node 32 tools/train.py configs/regionclip/regionclip_pretrain_r50_cc3m.py --launcher pytorch
    python tools/export.py configs/regionclip/regionclip_pretrain_r50_cc3m.py CHECKPOINT regionclip.safetensors

3 pictures per process; 32 processes make the paper's batch of 96.  Captions are a JSON list of {"image", "caption"},
concepts a text file with one noun per line, parsed from the captions (4,764 for COCO's).  The proposal network is an
R50-FPN trained on the 866 base classes of LVIS; it has seen objects that OV-COCO calls novel.  Convert the
released one (file names [recalled]): python tools/convert_regionclip.py rpn_lvis_866.pth rpn.safetensors --part rpn.

Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = ["../_base_/train.py", "../_base_/frozen_rpn_r50_fpn.py"]

model = dict(
    type="RegionCLIPPretraining",
    weights="RN50/openai",
    concepts="data/cc3m/concepts.txt",
    proposals=dict(
        checkpoint="checkpoints/rpn.safetensors",
        nms=0.5,
        count=300,
    ),
    most=100,
    threshold=0.1,
)

train_dataloader = dict(
    batch_size=3,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="SeededSampler"),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="mmdet.CocoCaptionDataset",
            data_root="data/cc3m",
            ann_file="captions.json",
            data_prefix=dict(img_path="images"),
            pipeline=[
                dict(type="mmdet.LoadImageFromFile"),
                dict(
                    type="mmdet.RandomChoiceResize",
                    scales=[(side, 1333) for side in range(640, 801, 32)],
                    keep_ratio=True,
                ),
                dict(type="mmdet.RandomFlip", prob=0.5),
                dict(type="mmdet.PackDetInputs", meta_keys=("img_path", "img_shape", "scale_factor", "gt_caption")),
            ],
        ),
    ),
)

optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.002, momentum=0.9, weight_decay=1e-4), clip_grad=dict(max_norm=5.0)
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, begin=0, end=5000, by_epoch=False),
    dict(type="MultiStepLR", milestones=[300_000, 525_000], gamma=0.1, by_epoch=False),
]
train_cfg = dict(type="TrainLoop", max_iters=600_000)
