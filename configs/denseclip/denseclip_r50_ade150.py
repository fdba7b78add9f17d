"""DenseCLIP (Rao et al., CVPR 2022) with CLIP's RN50 on ADE20K, by the published recipe.

    torchrun --nproc_per_node 8 tools/train.py configs/denseclip/denseclip_r50_ade150.py --launcher pytorch

4 pictures per process; eight processes make the paper's batch of 32 [recalled].  The text tower is frozen, which is
what the published learning rate of 0 amounts to.  BatchNorm becomes SyncBN in distributed runs (sync_bn).  The class
names are those of the vocabulary ade150, one name each; the authors' list may spell some otherwise, which matters for
their checkpoints.  Measured by us: not yet (no pretrained CLIP weights at hand).
"""

_base_ = ["../_base_/train.py", "../_base_/ade150_512.py"]

sync_bn = "torch"
model = dict(
    type="DenseCLIP",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[122.7709, 116.746, 104.0937],
        std=[68.5005, 66.6322, 70.3232],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(weights="RN50/openai", position_size=512),
    vocabulary="ade150",
    class_tokens=5,
    context_tokens=8,
    context_decoder=dict(width=256, heads=4, layers=3, dropout=0.1),
    score_level=3,
    gamma=1e-4,
    tau=0.07,
    score_weight=0.4,
    neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048 + 150], out_channels=256, num_outs=4),
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
    train_cfg=dict(),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={"backbone": dict(lr_mult=0.1)}, norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=1500, end=80000),
]
train_cfg = dict(type="TrainLoop", max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000), logger=dict(interval=50))
