"""MaskCLIP+ on eight frames of CamVid, taught by the embedded demo model: a smoke test, about a minute on one core.

    python tools/train.py configs/maskclip_plus/maskclip_plus_tiny_overfit.py

No label is used.  The demo model knows no photographs, so the student learns a bad teacher by heart and its score means
nothing; that the loss falls, and goes on falling once the student teaches itself, is what this shows.
"""

_base_ = ["../_base_/train.py", "../_base_/camvid_mini_overfit.py"]

model = dict(
    type="MaskCLIPPlus",
    data_preprocessor=dict(
        type="mmseg.SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=16,
    ),
    student=dict(
        type="EncoderDecoder",
        backbone=dict(
            type="ResNetV1c",
            depth=18,
            base_channels=32,
            stem_channels=32,
            dilations=(1, 1, 2, 4),
            strides=(1, 2, 1, 1),
            norm_cfg=dict(type="BN"),
            contract_dilation=True,
        ),
        decode_head=dict(
            type="ovseg.MaskCLIPPlusHead",
            head=dict(
                type="ASPPHead",
                in_channels=256,
                in_index=3,
                dilations=(1, 6),
                dropout_ratio=0.0,
                norm_cfg=dict(type="BN"),
            ),
            vocabulary="camvid",
            weights="tiny",
        ),
        train_cfg=dict(),
        test_cfg=dict(mode="whole"),
    ),
    teacher=dict(weights="tiny", dense=dict(type="MaskCLIP"), scorer=dict(type="DenoisedScore", prompt_denoising=0.5)),
    vocabulary="camvid",
    guided=(1, 40),
    self_training=(40, -1),
)

train_dataloader = dict(batch_size=4)

optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4))
param_scheduler = []
train_cfg = dict(type="TrainLoop", max_iters=60, val_interval=60)
