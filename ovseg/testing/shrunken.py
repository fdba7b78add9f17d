"""Every open_clip architecture, shrunken: few layers, narrow, random weights, in the folder layout it is published in.

timm's networks take no depth through open_clip, so ``timm.create_model`` is replaced while ``shrunken`` is open; both
open_clip and ovseg build the small ones then.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import open_clip
import timm
import torch
from safetensors.torch import save_file
from timm.models.vitamin import VitCfg, VitConvCfg
from torch import nn

from ovseg.rng import seeded

VOCABULARY = 300  # of stand-in tokenizers


def small_network(name: str) -> dict:
    """Arguments of ``timm.create_model`` that make a network of open_clip's architectures small."""
    if name.startswith("vitamin"):
        stem = VitCfg(
            embed_dim=(16, 32, 64),
            depths=(1, 1, 1),
            stem_width=16,
            conv_cfg=VitConvCfg(norm_layer="layernorm2d", norm_eps=1e-6),
            head_type="1d",
        )
        return {"embed_dim": 64, "depth": 3, "num_heads": 4, "img_size": 64, "embed_cfg": stem}
    if name.startswith("convnext"):
        return {"depths": (1, 1, 1, 1), "dims": (8, 16, 32, 64)}
    if name.startswith("fastvit"):
        stages = 5 if name.endswith(("mci3", "mci4")) else 4
        return {"layers": (1,) * stages, "embed_dims": (16, 16, 32, 32, 64)[:stages]}
    if name.startswith("vit_base_mci"):
        return {"depth": 3, "img_size": 64}  # its stem is as wide as the whole
    if name.startswith(("vit_", "eva")):
        return {"depth": 3, "embed_dim": 64, "num_heads": 4, "img_size": 4 * int(re.search(r"patch(\d+)", name)[1])}
    return {}


@contextlib.contextmanager
def shrunken(networks: Mapping[str, dict] | None = None) -> Iterator[None]:
    """While open, timm makes its networks small: those of open_clip, or the given ones with their arguments."""
    whole = timm.create_model

    def small(name, *args, **options):
        return whole(name, *args, **(options | (small_network(name) if networks is None else networks.get(name, {}))))

    timm.create_model = small
    try:
        yield
    finally:
        timm.create_model = whole


def small_config(name: str) -> dict:
    """The config of an architecture with few layers and channels."""
    config = open_clip.get_model_config(name)
    config["embed_dim"] = 32
    vision, text = config["vision_cfg"], config["text_cfg"]
    if network := vision.get("timm_model_name"):
        vision["image_size"] = small_network(network).get("img_size", 128)
    elif isinstance(vision["layers"], list):
        vision |= {"layers": [1, 1, 1, 1], "width": 8, "image_size": 96, "head_width": 32}
    else:
        vision |= {"layers": 3, "width": 64, "head_width": 16, "image_size": 4 * vision["patch_size"]}
        vision |= {"attn_pooler_queries": 4, "attn_pooler_heads": 4} if vision.get("attentional_pool") else {}
    text |= {"layers": 2, "width": 32, "heads": 2}
    if text.get("hf_tokenizer_name"):
        text["vocab_size"] = VOCABULARY
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {"layers": 1, "width": 32, "heads": 2, "attn_pooler_heads": 2}
    return config


def save_small(folder: Path, config: dict, seed: int = 0) -> nn.Module:
    """Write a model of a config as open_clip's folder; the model as open_clip itself loads it from there."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    make = partial(open_clip.create_model, f"local-dir:{folder}")
    with seeded(seed):
        model = make(load_weights=False, pretrained_text=False)
        randomize(model)
    save_file(
        {key: value.contiguous().clone() for key, value in model.state_dict().items()}, folder / "model.safetensors"
    )
    return make().eval()


@torch.no_grad()
def randomize(model: nn.Module):
    """Move all numbers away from values that hide a mistake: zero biases, tiny layer scales, unit statistics."""
    for parameter in model.parameters():
        if parameter.ndim:
            parameter += 0.05 * torch.randn_like(parameter) + (0.2 * torch.rand_like(parameter)) * (parameter.ndim == 1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)


def small_tokens(config: dict) -> torch.Tensor:
    """Token ids (2, context) of two prompts: CLIP's own, or made up where the tokenizer lies on the hub."""
    text = config["text_cfg"]
    context = text.get("context_length", 77)
    if not text.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(context_length=context)(["a photo of a cat.", "sky"])
    tokens = torch.zeros(2, context, dtype=torch.long)
    for row, words in zip(tokens, ([7, 250, 11], [40]), strict=True):
        filled = [5, *words, text.get("eos_id", 2)]
        row[: len(filled)] = torch.tensor(filled)
    return tokens
