"""PixelCLIP (Shin et al., NeurIPS 2024) without any masks: they are 16 clusters of DINO features per picture.

    python tools/train.py configs/pixelclip/pixelclip_vitb16_dino.py        # the paper: 4 GPUs, 12 pictures on each

The clusters are made on the fly at the resolution of the towers [inferred]; timm fetches DINO ViT-S/16.  All else is
pixelclip_vitb16_sa1b.py.  Measured by us: not yet (neither weights nor data at hand).
"""

_base_ = "pixelclip_vitb16_sa1b.py"

model = dict(proxy=dict(type="TimmProxy", model="vit_small_patch16_224.dino"), proxy_masks=16)

train_dataloader = dict(
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(type="mmseg.LoadImageFromFile"),
                dict(type="mmseg.Resize", scale=(1024, 4096), keep_ratio=True),
                dict(type="mmseg.RandomCrop", crop_size=(640, 640)),
                dict(type="mmseg.RandomFlip", prob=0.5),
                dict(type="mmseg.PhotoMetricDistortion"),
                dict(type="StrongView"),
                dict(type="PackMapInputs", fields=("student_view",)),
            ]
        )
    )
)
