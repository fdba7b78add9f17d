"""RegionCLIP: features, scores and boxes of regions, and the losses of pretraining and fine-tuning."""

import re

import torch
from torch import Tensor

from ovseg.regions import regionclip as rc
from ovseg.regions import regionclip_losses as losses
from ovseg.towers.build import build_visual
from ovseg.towers.formats import regionclip_visual

from .common import case

CROSS_ENTROPY = re.compile(r"out/loss_(?:ce|focal)(?:_g(?P<gamma>[\d.]+\d))?(?:_bg(?P<background>[\d.]+))?")


@case(inputs=("rois", "text_*", "labels", "objectness_logits"))
def det_regionclip_region(golden):
    meta, weights, temperature = golden.meta, golden.under("w/"), golden.meta.get("temperature", 0.01)
    visual = regionclip_visual(weights)
    heads = meta.get("heads", max(1, visual["attnpool.c_proj.weight"].shape[1] // 64))
    tower = build_visual(visual, heads)
    ratio = meta.get("sampling_ratio", 0)
    rois = golden.input("rois")
    res4 = rc.res_stages(tower, golden.input("image"))[-1]
    boxes, order = _by_picture(rois, len(res4))
    features, maps = rc.region_features(tower, res4, boxes, ratio, with_maps=True)
    features, maps = features[order], maps[order]
    pooled = rc.region_maps(tower, res4, boxes, ratio)[order]
    arrays = {"res4": res4, "roi_mean_per_roi": pooled.mean((2, 3)), "region_feats": features, "res5_first": maps[0]}
    if "text_test" in golden.arrays:
        opened = rc.region_logits(features, golden.input("text_test"), temperature)
        arrays |= {"scores_open": opened, "probs_open": opened.softmax(-1)}
        if "objectness_logits" in golden.arrays:
            objectness = golden.input("objectness_logits")
            arrays["scores_times_rpn"] = rc.with_objectness(opened.softmax(-1), objectness, "logit")
    if "text_train" in golden.arrays:
        closed = arrays["scores_closed"] = rc.region_logits(features, golden.input("text_train"), temperature)
        for name in golden.names if "labels" in golden.arrays else ():
            if match := CROSS_ENTROPY.fullmatch(name):
                settings = {key: float(value) for key, value in match.groupdict().items() if value}
                loss = losses.region_cross_entropy(closed, golden.input("labels"), **settings)
                arrays[name.removeprefix("out/")] = loss
    if "box_predictor.bbox_pred.weight" in weights:
        arrays |= _boxes(features, rois[:, 1:], weights, meta.get("bbox_reg_weights", (10, 10, 5, 5)))
    return {f"out/{name}": value for name, value in arrays.items()}


def _by_picture(rois: Tensor, count: int) -> tuple[list[Tensor], Tensor]:
    """Boxes of each image from (R, 5) with the image index first, and the new position of each row."""
    number = rois[:, 0].long()
    return [rois[number == i, 1:] for i in range(count)], number.argsort(stable=True).argsort()


def _boxes(features: Tensor, rois: Tensor, weights: dict[str, Tensor], scale) -> dict[str, Tensor]:
    from ovseg.detectors.regionclip_head import box_coder

    layer = [weights[f"box_predictor.bbox_pred.{name}"] for name in ("weight", "bias")]
    deltas = torch.nn.functional.linear(features, *layer)
    return {"proposal_deltas": deltas, "pred_boxes": box_coder(scale).decode(rois, deltas)}


@case(inputs=("concept_emb", "teacher_region_feats", "student_region_feats", "global_image_feats", "caption_embs"))
def det_regionclip_pretrain_loss(golden):
    meta, arrays = golden.meta, {}
    temperature = meta.get("temperature", 0.01)
    if {"concept_emb", "teacher_region_feats"} <= set(golden.arrays):
        concepts = golden.input("concept_emb")
        pseudo = losses.pseudo_labels(
            golden.input("teacher_region_feats"),
            concepts,
            meta.get("teacher_temperature", temperature),
            meta.get("concept_threshold", 0.1),
        )
        keep, labels, q = pseudo
        arrays |= {"keep": keep, "target_inds": labels, "teacher_probs": q}
        arrays["label_matrix"] = losses.same_concept(labels).float()
        if "student_region_feats" in golden.arrays:
            arrays |= _student(golden.input("student_region_feats"), concepts, pseudo, temperature)
    if {"global_image_feats", "caption_embs"} <= set(golden.arrays):
        pair = golden.input("global_image_feats"), golden.input("caption_embs")
        arrays["loss_img_txt_level"] = losses.image_text(*pair, temperature)
    return {f"out/{name}": value for name, value in arrays.items()}


def _student(features: Tensor, concepts: Tensor, pseudo, temperature: float) -> dict[str, Tensor]:
    with torch.inference_mode(False), torch.enable_grad():
        student = features.clone().requires_grad_(True)
        concepts, (keep, labels, q) = concepts.clone(), (each.clone() for each in pseudo)
        distilled = losses.distillation(student[keep], concepts, q, temperature)
        contrast = losses.concept_contrast(student[keep], concepts, labels, temperature)
        (gradient,) = torch.autograd.grad(distilled + contrast, student)
    return {
        "loss_region_distill": distilled,
        "loss_concept_contrastive": contrast,
        "grad_student_distill_plus_contrastive": gradient,
    }
