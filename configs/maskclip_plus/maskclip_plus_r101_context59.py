"""MaskCLIP+ (Zhou et al., ECCV 2022) without annotations: ResNet-101, DeepLabv2, taught by MaskCLIP's ViT-B/16.

    python tools/train.py configs/maskclip_plus/maskclip_plus_r101_context59.py    # 4 GPUs, 4 pictures on each

The backbone starts from ImageNet (mmpretrain's ResNetV1c), which mmengine fetches.  The reference's training gives the
teacher ImageNet's statistics; ours gives it those of its weights, ``model.teacher.protocol.normalization=imagenet`` is
the reference's way.  Key smoothing and prompt denoising are the reference's, with its norm over positions.  The
learning rate falls as MMSegmentation's schedules do [inferred].  Measured by us: not yet (no weights at hand).
"""

_base_ = "../_base_/train.py"

_words = dict(vocabulary="context59", weights="ViT-B-16/openai")

model = dict(
    type="MaskCLIPPlus",
    data_preprocessor=dict(
        type="mmseg.SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(480, 480),
    ),
    student=dict(
        type="EncoderDecoder",
        backbone=dict(
            type="ResNetV1c",
            depth=101,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            dilations=(1, 1, 2, 4),
            strides=(1, 2, 1, 1),
            norm_cfg=dict(type="SyncBN", requires_grad=True),
            contract_dilation=True,
            init_cfg=dict(type="Pretrained", checkpoint="open-mmlab://resnet101_v1c"),
        ),
        decode_head=dict(
            type="ovseg.MaskCLIPPlusHead",
            head=dict(
                type="ovseg.ASPPV2Head",
                in_channels=2048,
                in_index=3,
                dilations=(6, 12, 18, 24),
                dropout_ratio=0.0,
                loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
            ),
            **_words,
        ),
        train_cfg=dict(),
        test_cfg=dict(mode="whole"),
    ),
    teacher=dict(
        weights="ViT-B-16/openai",
        dense=dict(type="MaskCLIP", keys=True),
        scorer=dict(type="DenoisedScore", prompt_denoising=0.5, key_smoothing=1.0, key_norm="positions"),
        protocol=dict(normalization="weights"),
    ),
    vocabulary="context59",
    guided=(1, -1),
)

_load = [dict(type="mmseg.LoadImageFromFile"), dict(type="mmseg.LoadAnnotations", reduce_zero_label=True)]
_augment = [
    dict(type="mmseg.RandomResize", scale=(2048, 520), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="mmseg.RandomCrop", crop_size=(480, 480), cat_max_ratio=0.75),
    dict(type="mmseg.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
_read = [
    _load[0],
    dict(type="mmseg.Resize", scale=(2048, 520), keep_ratio=True),
    _load[1],
    dict(type="mmseg.PackSegInputs"),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="SeededSampler"),
    dataset=dict(type="SeededDataset", dataset=dict(type="Context59", split="train", pipeline=_load + _augment)),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="Context59", pipeline=_read),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="OpenVocabIoU")
test_evaluator = val_evaluator
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.004, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, by_epoch=False, begin=0, end=4000)]
train_cfg = dict(type="TrainLoop", max_iters=4000, val_interval=4000)
