"""F-ViT (in CLIPSelf, Wu et al., ICLR 2024), EVA-02-CLIP's ViT-L/14, on OV-LVIS by the published recipe.

    torchrun --nproc_per_node 8 tools/train.py configs/fvit/fvit_vitl14_lvis.py --launcher pytorch
    … --cfg-options model.weights=clipself.safetensors          # a tower refined by CLIPSelf (configs/clipself)

8 pictures of 896 px per process; eight processes make a batch of 64, 48 passes.  rare.txt names the 337 rare classes,
one per line, as the vocabulary spells them.  Needs the package lvis.  Repeat-factor sampling as usual on LVIS
[recalled].  Published mask AP of rare classes: 34.9 with CLIPSelf on image patches.  Measured by us: not yet (neither
weights nor data at hand).
"""

_base_ = ["../_base_/train.py", "../_base_/ov_lvis_boxes.py"]

sync_bn = "torch"
model = dict(
    type="FViT",
    weights="EVA02-L-14/merged2b_s4b_b131k",
    vocabulary="lvis",
    unseen="data/lvis_v1/rare.txt",
    masks=True,
    backbone=dict(dense=dict(type="CLIPSelf"), out_indices=(6, 10, 14, 23), norm_cfg=dict(type="BN")),
    background="background",
    background_weight=0.9,
    temperature=50.0,
    vlm=True,
    vlm_temperature=50.0,
    alpha=0.1,
    beta=0.4,
    neck=dict(norm_cfg=dict(type="BN")),
    roi_head=dict(bbox_head=dict(norm_cfg=dict(type="BN")), mask_head=dict(norm_cfg=dict(type="BN"))),
    test_cfg=dict(rcnn=dict(score_thr=0.0001, nms=dict(type="nms", iou_threshold=0.5), max_per_img=300)),
    statistics="imagenet",
)

train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        dataset=dict(
            dataset=dict(
                pipeline=[
                    dict(type="mmdet.LoadImageFromFile"),
                    dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
                    dict(
                        type="mmdet.RandomResize",
                        scale=(896, 896),
                        ratio_range=(0.1, 2.0),
                        resize_type="mmdet.Resize",
                        keep_ratio=True,
                    ),
                    dict(type="mmdet.RandomCrop", crop_size=(896, 896), crop_type="absolute", recompute_bbox=True),
                    dict(type="mmdet.FilterAnnotations", min_gt_bbox_wh=(0.01, 0.01)),
                    dict(type="mmdet.RandomFlip", prob=0.5),
                    dict(type="mmdet.Pad", size=(896, 896)),
                    dict(type="mmdet.PackDetInputs"),
                ],
            )
        )
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="mmdet.LoadImageFromFile"),
            dict(type="mmdet.Resize", scale=(896, 896), keep_ratio=True),
            dict(type="mmdet.Pad", size=(896, 896)),
            dict(
                type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
            ),
        ]
    )
)

optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.1), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, begin=0, end=250, by_epoch=False),
    dict(type="MultiStepLR", milestones=[50_080, 68_860], gamma=0.1, by_epoch=False),  # passes 32 and 44
]
train_cfg = dict(type="TrainLoop", max_iters=75_120, val_interval=75_120)
