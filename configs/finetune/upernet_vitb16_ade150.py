"""UPerNet on CLIP's ViT-B/16, fine-tuned on ADE20K.

    torchrun --nproc_per_node 4 tools/train.py configs/finetune/upernet_vitb16_ade150.py --launcher pytorch

Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = ["../_base_/finetune_vitb16.py", "../_base_/ade150_512.py"]

model = dict(
    decode_head=dict(
        type="UPerHead",
        in_channels=[768, 768, 768, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_channels=768,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=0.4),
    ),
)
