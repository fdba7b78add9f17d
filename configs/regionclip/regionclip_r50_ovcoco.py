"""RegionCLIP (Zhong et al., CVPR 2022), RN50, fine-tuned on the 48 base classes of OV-COCO, by the published recipe.

    torchrun --nproc_per_node 8 tools/train.py configs/regionclip/regionclip_r50_ovcoco.py --launcher pytorch

2 pictures per process; eight processes make the paper's batch of 16.  The proposal network is an R50-C4 trained on the
same base classes: python tools/convert_regionclip.py rpn_coco_48.pth rpn_coco_48.safetensors --part rpn
(file names [recalled]).  Zero-shot, before any fine-tuning: --cfg-options model.setting=zero_shot
model.proposals.nms=0.9; ground-truth boxes: model.setting=ground_truth and proposals=dict(type="GivenBoxes",
source="ground_truth").  Published AP50: novel 31.4, all 50.4; base 57.1 [recalled].
Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = ["../_base_/train.py", "../_base_/frozen_rpn_r50_c4.py", "../_base_/ov_coco_boxes.py"]

model = dict(
    type="RegionCLIP",
    weights="checkpoints/regionclip_pretrained-cc_rn50.pth",
    vocabulary="ov_coco",
    unseen="ov_coco_novel",
    proposals=dict(
        checkpoint="checkpoints/rpn_coco_48.safetensors",
        nms=0.7,
        count=1000,
    ),
    setting="coco",
    background=0.2,
    gamma=0.5,
)

optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.002, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, begin=0, end=5000, by_epoch=False),
    dict(type="MultiStepLR", milestones=[60_000, 80_000], gamma=0.1, by_epoch=False),
]
train_cfg = dict(type="TrainLoop", max_iters=90_000, val_interval=90_000)
