"""F-ViT (in CLIPSelf, Wu et al., ICLR 2024), EVA-02-CLIP's ViT-B/16, on OV-COCO by the published recipe.

    torchrun --nproc_per_node 8 tools/train.py configs/fvit/fvit_vitb16_coco.py --launcher pytorch
    … --cfg-options model.weights=clipself.safetensors          # a tower refined by CLIPSelf (configs/clipself)

8 pictures of 640 px per process; eight processes make the paper's batch of 64, 3 passes over the pictures with base
objects (107,761 [recalled]).  The published detector reads pictures with ImageNet's statistics.  Published AP50 of
novel classes: 33.6 with CLIPSelf on image patches, 37.6 on proposals; 17.5 [recalled] without.  Measured by us: not yet
(neither weights nor data at hand).
"""

_base_ = ["../_base_/train.py", "../_base_/ov_coco_boxes.py"]

sync_bn = "torch"
model = dict(
    type="FViT",
    weights="EVA02-B-16/merged2b_s8b_b131k",
    vocabulary="ov_coco",
    unseen="ov_coco_novel",
    backbone=dict(dense=dict(type="CLIPSelf"), out_indices=(3, 5, 7, 11), norm_cfg=dict(type="BN")),
    background="background",
    background_weight=0.6,
    temperature=50.0,
    vlm=True,
    vlm_temperature=75.0,
    alpha=0.1,
    beta=0.8,
    neck=dict(norm_cfg=dict(type="BN")),
    roi_head=dict(bbox_head=dict(norm_cfg=dict(type="BN"))),
    test_cfg=dict(rcnn=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.4), max_per_img=100)),
    statistics="imagenet",
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        dataset=dict(
            pipeline=[
                dict(type="mmdet.LoadImageFromFile"),
                dict(type="mmdet.LoadAnnotations", with_bbox=True),
                dict(
                    type="mmdet.RandomResize",
                    scale=(640, 640),
                    ratio_range=(0.1, 2.0),
                    resize_type="mmdet.Resize",
                    keep_ratio=True,
                ),
                dict(type="mmdet.RandomCrop", crop_size=(640, 640), crop_type="absolute", recompute_bbox=True),
                dict(type="mmdet.FilterAnnotations", min_gt_bbox_wh=(0.01, 0.01)),
                dict(type="mmdet.RandomFlip", prob=0.5),
                dict(type="mmdet.Pad", size=(640, 640)),
                dict(type="mmdet.PackDetInputs"),
            ]
        )
    ),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type="mmdet.LoadImageFromFile"),
            dict(type="mmdet.Resize", scale=(640, 640), keep_ratio=True),
            dict(type="mmdet.Pad", size=(640, 640)),
            dict(type="mmdet.LoadAnnotations", with_bbox=True),
            dict(
                type="mmdet.PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
            ),
        ]
    )
)

optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.1), clip_grad=dict(max_norm=1.0))
param_scheduler = [dict(type="LinearLR", start_factor=0.001, begin=0, end=250, by_epoch=False)]
train_cfg = dict(type="TrainLoop", max_iters=5052, val_interval=5052)
