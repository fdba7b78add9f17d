"""RegionCLIP (Zhong et al., CVPR 2022) as a detector of composed scenes, trained on the boxes of base classes.

    python tools/train.py configs/regionclip/regionclip_tiny_scenes.py
    python tools/test.py configs/regionclip/regionclip_tiny_scenes.py --checkpoint CHECKPOINT

The tower is the pre-trained one (regionclip_pretrain_tiny_scenes.py); without pre-training:
--cfg-options model.weights=configs/regionclip/tiny_rn.safetensors.  The RPN is trained along, on a pyramid of its own.
"""

_base_ = "../_base_/tiny_regionclip.py"

model = dict(
    type="RegionCLIP",
    weights="configs/regionclip/tiny_rn_pretrained.safetensors",
    unseen="scene_objects_novel",
    proposals=dict(type="OwnRPN", width=64, outs=3, scales=(6, 9), count=100, train_count=200),
    setting="coco",
    samples=32,
)
train_cfg = dict(type="TrainLoop", max_iters=500, val_interval=250)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max=480, begin=20, end=500, eta_min=1e-6, by_epoch=False),
]
