"""What all DenseCLIP configs share: CLIP's statistics and a Semantic FPN head."""

_base_ = "train.py"

model = dict(
    type="DenseCLIP",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[122.7709, 116.746, 104.0937],
        std=[68.5005, 66.6322, 70.3232],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    neck=dict(type="FPN", num_outs=4),
    decode_head=dict(
        type="FPNHead",
        in_index=[0, 1, 2, 3],
        dropout_ratio=0.1,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
    ),
    train_cfg=dict(),
)
