"""CLIP's ViT-B/16, all of it fine-tuned with layer-wise learning rates, for ADE20K at 512 px.

The recipe is BEiT's for ViT-B under UPerNet as MMSegmentation has it (AdamW, warm-up of 1500, linear decay) [recalled];
learning rate and decay by layer are a starting point of ours, not tuned.
"""

_base_ = "train.py"

sync_bn = "torch"
model = dict(
    type="EncoderDecoder",
    _scope_="mmseg",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[122.7709, 116.746, 104.0937],
        std=[68.5005, 66.6322, 70.3232],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(type="ovseg.CLIPBackbone", weights="ViT-B-16/openai", out_indices=(3, 5, 7, 11), position_size=512),
    train_cfg=dict(),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341)),
)

optim_wrapper = dict(
    constructor="LayerDecay",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(rate=0.75),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=80000),
]
train_cfg = dict(type="TrainLoop", max_iters=80000, val_interval=8000)
default_hooks = dict(checkpoint=dict(interval=8000), logger=dict(interval=50))
