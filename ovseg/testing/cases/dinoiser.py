"""CLIP-DINOiser's two convolutions, their losses and the gradients of these."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import DenseFeatures
from ovseg.dense.clip_dinoiser import Correlations, pool
from ovseg.score import ForegroundScore

from .common import Case, case, in_cases


@case(inputs=("*/text", "*/clip_inter_tokens", "*/clip_proj", "*/dino_corr", "*/found_pred"))
def trained_clipdinoiser(golden):
    with torch.inference_mode(False), torch.enable_grad():
        return in_cases(golden, _one)


def _one(each: Case) -> dict[str, Tensor]:
    from ovseg.segmentors.dinoiser_training import correlation_loss, saliency_loss

    settings = each.settings
    convolutions = Correlations.from_state(each.weights).requires_grad_(True)
    tokens = each.input("clip_inter_tokens")
    y = tokens[:, 1:].transpose(1, 2).unflatten(2, (settings["h"], settings["w"]))
    raw, background = convolutions(y), convolutions.background(y)
    arrays = {"corr": raw.unflatten(2, y.shape[2:]), "bkg_logits": background}
    if each.has("clip_proj"):
        features = arrays["pooled"] = pool(each.input("clip_proj"), raw, settings["gamma"])
        if each.has("text"):
            out = DenseFeatures(features, features.mean((2, 3)), extras={"foreground": background})
            text = F.normalize(each.input("text"), dim=-1)
            arrays["out_nobg"] = ForegroundScore()(out, text)
            arrays["out_bg"] = ForegroundScore(background=True, delta=settings["delta"])(out, text)
    if each.has("dino_corr"):
        loss = arrays["loss_dino"] = correlation_loss(raw, each.input("dino_corr").flatten(2), settings["gamma"])
        loss.backward()
        arrays["grad_obj_bias"] = convolutions.obj_proj.bias.grad
    if each.has("found_pred"):
        loss = arrays["loss_found"] = saliency_loss(background, each.input("found_pred"))
        loss.backward()
        arrays["grad_bkg_weight"] = convolutions.bkg_decoder.weight.grad
    return arrays
