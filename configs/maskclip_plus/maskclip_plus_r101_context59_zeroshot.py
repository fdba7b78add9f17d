"""MaskCLIP+ (Zhou et al., ECCV 2022), zero-shot: 49 classes with their labels, ten without, teacher RN50.

    python tools/train.py configs/maskclip_plus/maskclip_plus_r101_context59_zeroshot.py

The ten unseen classes are those of ZS3Net [from general knowledge].  CLIP labels them for the first tenth of the run,
then the student itself.  The learning rate is that of the run without annotations [inferred].  Measured by us: not yet.
"""

_base_ = "maskclip_plus_r101_context59.py"

model = dict(
    student=dict(
        decode_head=dict(
            head=dict(
                _delete_=True,
                type="DepthwiseSeparableASPPHead",
                in_channels=2048,
                in_index=3,
                c1_in_channels=256,
                c1_channels=48,
                dilations=(1, 12, 24, 36),
                norm_cfg=dict(type="SyncBN", requires_grad=True),
                loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
            ),
            weights="RN50/openai",
        )
    ),
    teacher=dict(
        _delete_=True,
        weights="RN50/openai",
        dense=dict(type="MaskCLIP"),
        protocol=dict(normalization="weights"),
    ),
    unseen=["cow", "motorbike", "sofa", "cat", "boat", "fence", "bird", "tvmonitor", "keyboard", "aeroplane"],
    guided=(1, 4000),
    self_training=(4000, -1),
)

param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, by_epoch=False, begin=0, end=40000)]
train_cfg = dict(max_iters=40000, val_interval=4000)
