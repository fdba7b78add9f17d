"""Methods with a second stream, another network, or a stage after the argmax."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.dense import GEM, CLIPDINOiser, CLIPtrase, MaskCLIP, ProxyCLIP
from ovseg.dense.base import to_grid
from ovseg.dense.clip_dinoiser import Correlations, pool
from ovseg.dense.cliptrase import correlation, without_global_patches
from ovseg.dense.features import pad_to_patches
from ovseg.refine.cluster import ClusterVote, dbscan, vote
from ovseg.score import CosineScore, ForegroundScore, WholeImageScore, min_max

from .common import case, features_and_logits, words


@case
def gem(golden):
    meta, tower, image = golden.meta, golden.tower(), golden.input("image")
    dense = GEM(meta["gem_depth"], meta["ss_attn_iter"], meta["ss_attn_temp"])
    arrays = features_and_logits(golden, dense, tower)
    state = tower.advance(tower.start(image, dense.positions), len(tower.blocks))
    arrays["features_ori"] = to_grid(tower.project(state.x[:, 1:]), state.grid)
    raw = F.interpolate(arrays["logits"], image.shape[2:], mode="bilinear", align_corners=False)
    return arrays | {"heatmap": min_max(raw), "heatmap_raw_lowprec": raw}


@case
def cliptrase(golden):
    tower, image, text, meta = golden.tower(), golden.input("image"), words(golden), golden.meta
    depth = len(tower.blocks)
    dense = CLIPtrase(positions="scale_count")
    out = dense(tower, image)
    taps = [f"block.{i}.{part}" for i in (depth - 2, depth - 1) for part in "qkv"] + [f"block.{depth - 1}.out"]
    state = tower.advance(tower.start(image, dense.positions), depth, taps)
    before, last = (correlation(*(state.taps[f"block.{i}.{part}"] for part in "qkv")) for i in (depth - 2, depth - 1))
    denoised = without_global_patches(before)[0]
    clusters = ClusterVote(meta["dbscan_eps"], meta["dbscan_min_samples"])
    arrays = {
        "features": out.features,
        "features_origin": to_grid(tower.project(state.x[:, 1:]), state.grid),
        "cls": out.extras["class_token"],
        "logits": CosineScore()(out, text),
        "corr": before[0],
        "corr_last": last[0],
        "corr_denoised": denoised,
        "dbscan_labels": torch.from_numpy(dbscan(denoised, clusters.eps, clusters.min_samples)),
    }
    size = tuple(image.shape[2:])
    regions = clusters.window_regions(out.extras["correlation"][0], state.grid, size)
    foreground = meta.get("foreground", 6)
    for name, scorer in (("PC59", CosineScore()), ("VOC20", WholeImageScore()), ("VOC21", CosineScore())):
        scores = F.interpolate(scorer(out, text), size, mode="bilinear", align_corners=False)
        labels = scores[0].argmax(0)
        if name == "VOC21":
            labels = labels.clamp(max=foreground)
        voted = labels if regions is None else vote(labels, regions)
        arrays |= {f"pred_noclust_{name}": labels.byte(), f"pred_{name}": voted.byte()}
    return arrays


class Given:
    """The file's external features as a proxy."""

    taps = ()

    def __init__(self, external: Tensor):
        self.external = external

    def __call__(self, tower, images, state):
        return self.external


@case(inputs=("ex_feats",))
def proxyclip(golden):
    proxy = Given(golden.input("ex_feats"))
    return features_and_logits(
        golden, ProxyCLIP(proxy, golden.meta["beta"], golden.meta["gamma"], positions="scale_count")
    )


@case(inputs=("conv/",))
def clip_dinoiser(golden):
    tower, image, text, meta = golden.tower(), golden.input("image"), words(golden), golden.meta
    convolutions = Correlations.from_state(golden.under("conv/"))
    dense = CLIPDINOiser(correlations=convolutions, gamma=meta["gamma"], padding="corner")
    dense.taps = (f"block.{meta['feats_idx']}.ln_2",)
    out = dense(tower, image)
    plain = MaskCLIP(padding="corner")(tower, image)
    padded, _ = pad_to_patches(image, tower.stride, "corner")
    state = tower.advance(tower.start(padded, dense.positions), len(tower.blocks), dense.taps)
    y = to_grid(state.taps[dense.taps[0]][:, 1:], state.grid)
    raw = convolutions(y)
    return {
        "maskclip_features": plain.features,
        "corr_raw": raw.unflatten(2, state.grid),
        "bkg_logit": convolutions.background(y),
        "features": pool(plain.features, raw, meta["gamma"]),
        "logits": CosineScore()(out, text),
        "prob": ForegroundScore()(out, text),
        "prob_found": ForegroundScore(background=True, delta=meta["delta"])(out, text),
        "clip_inter": y,
        "cls": out.embedding,
    }
