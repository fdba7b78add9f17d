"""CLIPSelf: the dense map, what is pooled from it under boxes and masks, and the loss against crops."""

import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import CLIPSelf
from ovseg.regions import pool_boxes, pool_masks
from ovseg.towers import Tower
from ovseg.towers.build import build_visual

from .common import case

INPUTS = ("normed_boxes_valid", "crops", "masks", "teacher_crop_features")


def _weights(golden) -> dict[str, Tensor]:
    return {name.removeprefix("student."): value for name, value in golden.under("w/").items()}


@case(inputs=INPUTS)
def det_clipself_openai_vit(golden):
    weights = _weights(golden)
    heads = golden.meta.get("heads", weights["conv1.weight"].shape[0] // 64)
    quick_gelu = golden.meta.get("act", "QuickGELU") == "QuickGELU"
    return _pooled(golden, build_visual(weights, heads, quick_gelu, golden.meta.get("ln_eps", 1e-5)))


@case(inputs=INPUTS)
def det_clipself_eva_vit(golden):
    settings = {"heads": "heads", "ln_eps": "eps", "rope_pt_hw_seq_len": "reference"}
    config = {"eva": {ours: golden.meta[theirs] for theirs, ours in settings.items() if theirs in golden.meta}}
    return _pooled(golden, build_visual(_weights(golden), config=config))


def _pooled(golden, tower: Tower) -> dict[str, Tensor]:
    """Whatever the arrays of a file allow, since each part is optional."""
    arrays = {}
    if "crops" in golden.arrays:
        arrays["out/global_of_crops0_1_student"] = tower(golden.input("crops")[:2])[0]
    if "image" not in golden.arrays:
        return arrays
    maps = arrays["out/dense"] = F.normalize(CLIPSelf()(tower, golden.input("image")).features, dim=1)
    if "normed_boxes_valid" not in golden.arrays:
        return arrays
    h, w = maps.shape[-2:]
    listed = golden.input("normed_boxes_valid")
    boxes = [each[each[:, 4] > 0.5, :4] * each.new_tensor([w, h, w, h]) for each in listed]
    pooled = arrays["out/roi_features"] = pool_boxes(maps, boxes, (h, w))
    if "masks" in golden.arrays:
        arrays["out/mask_pool"] = pool_masks(maps, golden.input("masks").split([len(each) for each in boxes]))
    if "teacher_crop_features" in golden.arrays:
        arrays["out/loss_cosine"] = 1 - F.cosine_similarity(pooled, golden.input("teacher_crop_features")).mean()
    return arrays
