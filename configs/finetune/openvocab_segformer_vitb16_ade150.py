"""SegFormer's head with words as its last layer on CLIP's ViT-B/16, fine-tuned on ADE20K.

    torchrun --nproc_per_node 4 tools/train.py configs/finetune/openvocab_segformer_vitb16_ade150.py --launcher pytorch

Afterwards ``ovseg.segmentors.set_classes(model, words)`` asks it for other words.  Measured by us: not yet (no
pretrained CLIP weights at hand).
"""

_base_ = ["../_base_/finetune_vitb16.py", "../_base_/ade150_512.py"]

model = dict(
    decode_head=dict(
        type="ovseg.OpenVocabHead",
        vocabulary="ade150",
        weights="ViT-B-16/openai",
        head=dict(
            type="SegformerHead",
            in_channels=[768, 768, 768, 768],
            in_index=[0, 1, 2, 3],
            channels=256,
            dropout_ratio=0.1,
            norm_cfg=dict(type="BN"),
            align_corners=False,
        ),
    ),
)
