"""DenseCLIP (Rao et al., CVPR 2022) on the embedded demo model, with 100 pictures and the 133 classes of COCO panoptic.

    python tools/train.py configs/denseclip/denseclip_tiny_coco.py

See denseclip_tiny_camvid.py for what to expect of it.
"""

_base_ = ["../_base_/tiny_denseclip.py", "../_base_/coco_mini.py"]

model = dict(
    vocabulary="coco_panoptic",
    neck=dict(in_channels=[256, 256, 256 + 133, 256]),
    decode_head=dict(num_classes=133),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=50, end=300),
]
train_cfg = dict(type="TrainLoop", max_iters=300, val_interval=300)
