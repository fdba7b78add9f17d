"""PixelCLIP (Shin et al., NeurIPS 2024): OpenAI's ViT-B/16 tuned with SA-1B's masks, which have no names.

    python tools/train.py configs/pixelclip/pixelclip_vitb16_sa1b.py        # the paper: 4 GPUs, 12 pictures on each
    python tools/export.py configs/pixelclip/pixelclip_vitb16_sa1b.py CHECKPOINT pixelclip.safetensors

Each picture has its masks beside it, ``data/sa1b/sa_1.jpg`` and ``data/sa1b/sa_1.json``.  The weight decay is CAT-Seg's
[inferred].  Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = "../_base_/train.py"

model = dict(
    type="PixelCLIPTraining",
    weights="ViT-B-16/openai",
    dense=dict(type="PixelCLIP"),
    vocabulary="coco_stuff",
    published={},
    protocol={},
    clusters=64,
    tokens=4,
    scale=100.0,
    decay=0.999,
    resolution=320,
    mask_size=256,
)

train_dataloader = dict(
    batch_size=12,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="SeededSampler"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="mmseg.BaseSegDataset",
            data_root="data/sa1b",
            data_prefix=dict(img_path=""),
            img_suffix=".jpg",
            metainfo=dict(classes=("region",)),
            pipeline=[
                dict(type="mmseg.LoadImageFromFile"),
                dict(type="LoadMaps", folder="data/sa1b", suffix=".json"),
                dict(type="mmseg.Resize", scale=(1024, 4096), keep_ratio=True),
                dict(type="mmseg.RandomCrop", crop_size=(640, 640)),
                dict(type="mmseg.RandomFlip", prob=0.5),
                dict(type="mmseg.PhotoMetricDistortion"),
                dict(type="StrongView"),
                dict(type="PackMapInputs", fields=("gt_regions", "student_view")),
            ],
        ),
    ),
)

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys={"pipeline.tower": dict(lr_mult=0.01), "names": dict(lr_mult=10.0)},
    ),
    clip_grad=dict(max_norm=0.01),
)
param_scheduler = [dict(type="CosineAnnealingLR", eta_min_ratio=0.5, by_epoch=False, begin=0, end=10000)]
train_cfg = dict(type="TrainLoop", max_iters=10000)

# The paper's protocol is the same for all: whole pictures squashed to 320 px, without sliding windows.
benchmarks = dict(coco_stuff=dict(), ade150=dict(), context59=dict(), cityscapes=dict(), voc20=dict())
