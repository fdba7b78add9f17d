"""RegionCLIP (Zhong et al., CVPR 2022), RN50x4, fine-tuned on the 866 base classes of LVIS, by the published recipe.

    torchrun --nproc_per_node 8 tools/train.py configs/regionclip/regionclip_r50x4_ovlvis.py --launcher pytorch

2 pictures per process; eight processes make the paper's batch of 16.  Regions are 18×18 (a table of 9×9); masks come
from a class-agnostic head.  rare.txt names the 337 rare classes, one per line, as the vocabulary spells them.  The
proposal network is an R50-FPN trained on the base classes (the published one with two convolutions, SyncBN and
large-scale jittering has rpn_head.num_convs=2 and norm_cfg in the neck).  Needs the package lvis.  Published AP: rare
22.0, all 32.3.  Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = ["../_base_/train.py", "../_base_/frozen_rpn_r50_fpn.py", "../_base_/ov_lvis_boxes.py"]

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

optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.002, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, begin=0, end=5000, by_epoch=False),
    dict(type="MultiStepLR", milestones=[120_000, 160_000], gamma=0.1, by_epoch=False),
]
train_cfg = dict(type="TrainLoop", max_iters=180_000, val_interval=180_000)
