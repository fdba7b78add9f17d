"""Embeddings of regions, and boxes from heat maps."""

import torch
import torch.nn.functional as F

from ovseg.phrases import box_objective, search_box
from ovseg.regions import MaskedTokens

from .common import case, words


@case(inputs=("masks",))
def adapting_clip_vit(golden):
    """The reference leaves its position table in half precision after resizing it; hence ``half_positions``."""
    tower, image, masks = golden.tower(), golden.input("image"), golden.input("masks")
    masks = masks[None] if masks.ndim == 3 else masks
    upsample, start = golden.meta.get("upsample", 1), golden.meta.get("start_block", 0)
    regions = MaskedTokens(upsample, start, half_positions=True)
    features = regions(tower, image, masks.expand(len(image), -1, -1, -1))
    logits = F.normalize(features, dim=-1) @ words(golden).T
    table = regions.positions(tower, regions.grid_of(tower, image))
    return {"features": features, "logits": logits, "pos_embed_used": table}


@case(inputs=("heatmap", "alphas", "eval_boxes"))
def det_box_search(golden):
    heat, boxes = golden.input("heatmap").numpy(), golden.input("eval_boxes").numpy()
    alphas, factor = golden.input("alphas").tolist(), golden.meta.get("downsample", 8)
    boxes_found = [search_box(heat, alpha, factor).box for alpha in alphas]
    values = torch.from_numpy(box_objective(heat, boxes, alphas[0])).float()
    return {"out/boxes_xyxy_inclusive": torch.tensor(boxes_found), "out/objective_alpha0": values}
