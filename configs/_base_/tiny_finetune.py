"""A fine-tuned image tower of the embedded demo model under a decode head; learning rates for runs of a few minutes.

The model is read in MMSegmentation's scope, so its heads need no prefix.
"""

_base_ = "train.py"

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
        size_divisor=16,
    ),
    backbone=dict(
        type="ovseg.CLIPBackbone", weights="tiny", out_indices=(1, 2, 3, 5), norm_cfg=dict(type="GN", num_groups=1)
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

optim_wrapper = dict(
    constructor="LayerDecay",
    optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(rate=0.75),
)
