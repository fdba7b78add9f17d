"""CLIP-DINOiser (Wysoczańska et al., ECCV 2024): training of its two convolutions, LAION's ViT-B/16 frozen.

    python tools/train.py configs/clip_dinoiser/clip_dinoiser_training_vitb16_laion.py
    python tools/export.py configs/clip_dinoiser/clip_dinoiser_training_vitb16_laion.py CHECKPOINT last.pt
    python tools/test.py configs/clip_dinoiser/clip_dinoiser_vitb16_laion.py --benchmark voc20 \
        --cfg-options model.dense.checkpoint=last.pt

The paper: 1000 pictures of ImageNet in ``data/imagenet_1000`` (drawn with replacement), 100 passes of 63 steps, the
rates ×0.1 after 5000 steps.  FOUND's saliency as ``data/found_1000/<picture>.png``, 0 to 255; without these files leave
``LoadMaps`` out, then saliency is made of DINO's features, which is ours.  timm fetches DINO ViT-B/16.
Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = "../_base_/train.py"

model = dict(
    type="DinoiserTraining",
    weights="ViT-B-16/laion2b_s34b_b88k",
    dense=dict(type="CLIPDINOiser", gamma=0.2),
    teacher=dict(type="TimmValues", model="vit_base_patch16_224.dino"),
    vocabulary="voc20",
    published={},
    protocol={},
)

train_dataloader = dict(
    batch_size=16,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="SeededSampler"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="mmseg.BaseSegDataset",
            data_root="data/imagenet_1000",
            data_prefix=dict(img_path=""),
            img_suffix=".JPEG",
            metainfo=dict(classes=("picture",)),
            pipeline=[
                dict(type="mmseg.LoadImageFromFile"),
                dict(type="LoadMaps", folder="data/found_1000", suffix=".png", field="gt_saliency"),
                dict(type="mmseg.Resize", scale=(448, 2048), keep_ratio=True),
                dict(type="mmseg.RandomCrop", crop_size=(448, 448)),
                dict(type="mmseg.RandomFlip", prob=0.5),
                dict(type="mmseg.PhotoMetricDistortion"),
                dict(type="PackMapInputs", fields=("gt_saliency",)),
            ],
        ),
    ),
)

optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=5e-5, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={"bkg_decoder": dict(lr_mult=200.0)}),
)
param_scheduler = [dict(type="MultiStepLR", milestones=[5000], gamma=0.1, by_epoch=False)]
train_cfg = dict(type="TrainLoop", max_iters=6300)

benchmarks = dict(
    voc21=dict(scorer=dict(type="ForegroundScore", background=True)),
    context60=dict(),
    coco_object=dict(scorer=dict(type="ForegroundScore", background=True)),
    voc20=dict(),
    cityscapes=dict(),
    context59=dict(),
    ade150=dict(),
    coco_stuff=dict(),
)
