"""Semantic FPN on CLIP's ViT-B/16, fine-tuned on ADE20K: DenseCLIP without its text.

    torchrun --nproc_per_node 4 tools/train.py configs/finetune/fpn_vitb16_ade150.py --launcher pytorch

Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = ["../_base_/finetune_vitb16.py", "../_base_/ade150_512.py"]

model = dict(
    neck=dict(type="FPN", in_channels=[768, 768, 768, 768], out_channels=256, num_outs=4),
    decode_head=dict(
        type="FPNHead",
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
)
