"""Scores of detector and frozen tower together: F-ViT's and BARON's rule."""

import torch

from ovseg.score import geometric_ensemble
from ovseg.score.text_classifier import cosine_logits

from .common import case


@case(inputs=("det_embed", "vlm_roi_embed", "class_embed_with_bg", "is_base_incl_bg", "baron_*_logits"))
def det_score_ensemble(golden):
    meta, arrays = golden.meta, {}
    base = golden.input("is_base_incl_bg") if "is_base_incl_bg" in golden.arrays else None
    if {"det_embed", "class_embed_with_bg"} <= set(golden.arrays):
        text = golden.input("class_embed_with_bg")
        arrays["fvit_det_logits"] = cosine_logits(golden.input("det_embed"), text, meta["det_temperature"])
        if "vlm_roi_embed" in golden.arrays and base is not None:
            seen = cosine_logits(golden.input("vlm_roi_embed"), text, meta["vlm_temperature"])
            p, q = arrays["fvit_det_logits"].softmax(-1), seen.softmax(-1)
            arrays["fvit_scores"] = geometric_ensemble(p, q, base, meta["alpha"], meta["beta"])
    if {"baron_det_logits", "baron_kd_logits", "is_base_incl_bg"} <= set(golden.arrays):
        pair = golden.input("baron_det_logits"), golden.input("baron_kd_logits")
        f = meta.get("baron_factor", 2 / 3)
        for name, activation in (("softmax", lambda x: x.softmax(-1)), ("sigmoid", torch.sigmoid)):
            arrays[f"baron_{name}"] = geometric_ensemble(*map(activation, pair), base, 1 - f, f)
    return {f"out/{name}": value for name, value in arrays.items()}
