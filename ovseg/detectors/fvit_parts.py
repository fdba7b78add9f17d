"""Neck, heads and settings of F-ViT (in CLIPSelf, Wu et al., ICLR 2024), for OV-COCO unless a config changes them."""

from collections.abc import Mapping


def published_parts(classes: int, embed_dim: int, channels, strides, masks: bool) -> dict:
    """F-ViT's neck, heads and settings for OV-COCO."""
    outs = max(5, len(strides))
    extractor = dict(
        type="mmdet.SingleRoIExtractor",
        roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
        out_channels=256,
        featmap_strides=list(strides),
        finest_scale=14 * strides[0],
    )
    rpn = dict(
        type="mmdet.RPNHead",
        in_channels=256,
        feat_channels=256,
        num_convs=2,
        anchor_generator=dict(
            type="AnchorGenerator",
            scales=[8],
            ratios=[0.5, 1.0, 2.0],
            strides=[strides[0] * 2**i for i in range(outs)],
        ),
        loss_cls=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type="mmdet.L1Loss", loss_weight=1.0),
    )
    head = dict(
        type="ovseg.FViTBBoxHead",
        in_channels=256,
        embed_dim=embed_dim,
        num_classes=classes,
        loss_cls=dict(type="mmdet.CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type="mmdet.L1Loss", loss_weight=1.0),
    )
    roi = dict(type="ovseg.FViTRoIHead", bbox_roi_extractor=extractor, bbox_head=head)
    if masks:
        roi["mask_roi_extractor"] = merged(extractor, dict(roi_layer=dict(output_size=14)))
        roi["mask_head"] = dict(
            type="mmdet.FCNMaskHead",
            num_convs=4,
            in_channels=256,
            conv_out_channels=256,
            num_classes=classes,
            class_agnostic=True,
            loss_mask=dict(type="mmdet.CrossEntropyLoss", use_mask=True, loss_weight=1.0),
        )
    nms = dict(type="nms", iou_threshold=0.7)
    train = dict(
        rpn=dict(
            assigner=dict(
                type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True
            ),
            sampler=dict(type="RandomSampler", num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(nms_pre=2000, max_per_img=1000, nms=nms, min_bbox_size=0),
        rcnn=dict(
            assigner=dict(
                type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=masks
            ),
            sampler=dict(type="RandomSampler", num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
            mask_size=28,
            pos_weight=-1,
            debug=False,
        ),
    )
    test = dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, nms=nms, min_bbox_size=0),
        rcnn=dict(score_thr=0.01, nms=dict(type="nms", iou_threshold=0.4), max_per_img=100, mask_thr_binary=0.5),
    )
    neck = dict(type="mmdet.FPN", in_channels=list(channels), out_channels=256, num_outs=outs)
    return dict(neck=neck, rpn_head=rpn, roi_head=roi, train_cfg=train, test_cfg=test)


def merged(own, changes):
    """A config with changes merged into it at any depth; a different ``type`` replaces the whole entry."""
    if not isinstance(own, Mapping) or not isinstance(changes, Mapping):
        return changes
    if "type" in own and changes.get("type", own["type"]) != own["type"]:
        return dict(changes)
    return dict(own) | {k: merged(own[k], value) if k in own else value for k, value in changes.items()}
