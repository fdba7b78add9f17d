"""DenseCLIP (Rao et al., CVPR 2022) on the embedded demo model and 60 frames of CamVid.

    python tools/train.py configs/denseclip/denseclip_tiny_camvid.py

The demo model knows drawn scenes, so this shows that the parts learn, not what the method can do; for that see
denseclip_vitb16_ade150.py.
"""

_base_ = ["../_base_/tiny_denseclip.py", "../_base_/camvid_mini.py"]

param_scheduler = [
    dict(type="LinearLR", start_factor=1e-2, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=50, end=300),
]
train_cfg = dict(type="TrainLoop", max_iters=300, val_interval=300)
