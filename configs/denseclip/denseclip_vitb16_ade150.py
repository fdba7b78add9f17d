"""DenseCLIP with CLIP's ViT-B/16 on ADE20K, by the published recipe; see denseclip_r50_ade150.py.

    torchrun --nproc_per_node 8 tools/train.py configs/denseclip/denseclip_vitb16_ade150.py --launcher pytorch

Taps behind blocks 3, 5, 7 and 11 (from 0), position table of 40×40 patches.
"""

_base_ = ["../_base_/denseclip_ade150.py", "../_base_/ade150_640.py"]

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(weights="ViT-B-16/openai", out_indices=(3, 5, 7, 11), position_size=640),
    score_level=2,
    neck=dict(in_channels=[768, 768, 768 + 150, 768]),
    test_cfg=dict(crop_size=(640, 640), stride=(426, 426)),
)
