"""Methods that change the attention of the last block."""

import torch
from torch import Tensor

from ovseg.dense import NACLIP, SCLIP, ClearCLIP, MaskCLIP, Vanilla
from ovseg.refine import PAMR
from ovseg.score import CosineScore, DenoisedScore

from .common import case, features_and_logits, words


@case
def vanilla(golden):
    return features_and_logits(golden, Vanilla(positions="scale_count"))


@case
def sclip(golden):
    tower, image = golden.tower(), golden.input("image")
    block = tower.blocks[-1]
    state = tower.advance(tower.start(image, "scale_count"), -1)
    q, k, _ = block.qkv(block.ln_1(state.x))
    weights = sum((block.scale * t @ t.transpose(-2, -1)).softmax(-1) for t in (q, k))
    dense = SCLIP(positions="scale_count")
    cls = tower.project(dense.read_out(block, state.x, state.grid))[
        :, 0
    ]  # the class token through SCLIP's own attention
    return features_and_logits(golden, dense, tower) | {"attn": weights[0], "cls": cls}


@case
def clearclip(golden):
    tower, image = golden.tower(), golden.input("image")
    options = {"positions": "scale_count", "padding": "floor"}
    types = {"vanilla": ("qk",), "MaskCLIP": ("identity",), "SCLIP": ("qq", "kk"), "ClearCLIP": ("qq",)}
    arrays = features_and_logits(golden, ClearCLIP(**options), tower)
    for name, relations in types.items():
        for suffix, keep in (("res", True), ("nores", False)):
            dense = ClearCLIP(relations=relations, residual=keep, ffn=keep, **options)
            arrays[f"features_{name}_{suffix}"] = dense(tower, image).features
    for count in range(1, len(tower.blocks) + 1):
        arrays[f"features_last{count}"] = ClearCLIP(last_n=count, **options)(tower, image).features
        arrays[f"features_ClearCLIP_nores_last{count}"] = arrays[f"features_last{count}"]
    return arrays


@case
def naclip(golden):
    tower, image = golden.tower(), golden.input("image")
    sigma = golden.meta.get("gaussian_std", 5.0)
    strategies = {
        "naclip": {},
        "kk": {"gaussian": "none"},
        "nonly": {"gaussian": "only"},
        "csa": {"gaussian": "none", "relations": ("qq", "kk")},
        "vanilla": {"gaussian": "none", "relations": ("qk",)},
    }

    def variant(arch, strategy):
        keep = arch == "vanilla"
        return NACLIP(sigma=sigma, positions="scale_count", residual=keep, ffn=keep, **strategies[strategy])

    main = variant(golden.meta.get("arch", "reduced"), golden.meta.get("attn_strategy", "naclip"))
    arrays = features_and_logits(golden, main, tower)
    grid = tower.start(image, "scale_count").grid
    arrays["gaussian"] = main.neighborhood(grid, torch.device("cpu"))
    for arch in ("reduced", "vanilla"):
        for strategy in strategies:
            arrays[f"features_{arch}_{strategy}"] = variant(arch, strategy)(tower, image).features
    return arrays


def _denoised(golden, out) -> dict[str, Tensor]:
    """Key smoothing and prompt denoising as the reference code has them: keys normalized over positions."""
    ks, pd = golden.meta.get("ks_thresh"), golden.meta.get("pd_thresh")
    settings = {"logits_ks": (ks, None), "logits_pd": (None, pd), "logits_kspd": (ks, pd)}
    return {name: DenoisedScore(*pair, key_norm="positions")(out, words(golden)) for name, pair in settings.items()}


@case
def maskclip(golden):
    image, text = golden.input("image"), words(golden)
    out = MaskCLIP(keys=True)(golden.tower(), image)
    arrays = {"features": out.features, "logits": CosineScore()(out, text), "k_tokens": out.extras["keys"]}
    literal = MaskCLIP()(golden.tower(quick_gelu=False, eps=1e-6), image)
    arrays["features_ref_gelu_eps1e-6"] = literal.features
    arrays["logits_ref_gelu_eps1e-6"] = CosineScore()(literal, text)
    return arrays | {"cls": out.embedding} | _denoised(golden, out)


@case
def maskclip_rn(golden):
    tower, image, text = golden.tower(), golden.input("image"), words(golden)
    out = MaskCLIP(keys=True)(tower, image)
    pooled = MaskCLIP(attn_pooling=True)(tower, image)
    arrays = {"trunk": tower.trunk(image), "features": out.features, "clip_embedding": out.embedding}
    arrays |= {"logits": CosineScore()(out, text), "logits_attn_pooling": CosineScore()(pooled, text)}
    return arrays | _denoised(golden, out)


@case(inputs=("mask",))
def pamr(golden):
    refiner = PAMR(golden.meta["num_iter"], golden.meta["dilations"])
    return {"refined": refiner(golden.input("image"), golden.input("mask"))}
