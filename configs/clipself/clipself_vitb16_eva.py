"""CLIPSelf (Wu et al., ICLR 2024) with image patches: EVA-02-CLIP's ViT-B/16 distils its own crops on COCO.

    torchrun --nproc_per_node 8 tools/train.py configs/clipself/clipself_vitb16_eva.py --launcher pytorch
    python tools/export.py configs/clipself/clipself_vitb16_eva.py CHECKPOINT clipself.safetensors

Eight processes with two pictures each, 6 passes over train2017, the long side resized to 1024 px.  Betas, the cosine
and what weight decay leaves out are open_clip's defaults [recalled].  With proposals the authors take
``regions="boxes", enlarge=1.5``.  Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = "../_base_/train.py"

model = dict(
    type="CLIPSelf",
    weights="EVA02-B-16/merged2b_s8b_b131k",
    dense=dict(type="CLIPSelf"),
    vocabulary="coco_stuff",
    published={},
    protocol={},
    regions="grid",
    max_split=6,
    most=20,
    share=0.7,
)

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="SeededSampler"),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="SeededDataset",
        dataset=dict(
            type="mmseg.BaseSegDataset",
            data_root="data/coco",
            data_prefix=dict(img_path="train2017"),
            img_suffix=".jpg",
            metainfo=dict(classes=("picture",)),
            pipeline=[
                dict(type="mmseg.LoadImageFromFile"),
                dict(type="mmseg.Resize", scale=(1024, 1024), keep_ratio=True),
                dict(type="mmseg.Pad", size=(1024, 1024), pad_val=dict(img=0, seg=255)),
                dict(type="mmseg.PackSegInputs"),
            ],
        ),
    ),
)

find_unused_parameters = True  # queries and keys of the last block are no part of its value path
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=1e-5, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-6),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=1000),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=1000, end=44_000, T_max=43_000, eta_min=0.0),
]
train_cfg = dict(type="TrainLoop", max_iters=44_000)
default_hooks = dict(checkpoint=dict(interval=7_400))
