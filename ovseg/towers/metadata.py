"""What a weights file says beside its tensors, read as data: names from lists, numbers in ranges, sizes as the tensors
have them.

Two layouts are read: the ``ovseg`` metadata of our own files, and ``open_clip_config.json`` of folders and of the hub.
Keys that would fetch something (``hf_model_name``, ``timm_model_pretrained``) are on no list.
"""

from functools import cache
from typing import Any

import open_clip
import torch
from torch import Tensor

from ovseg.compat.former_names import current
from ovseg.compat.untrusted import (
    bounded,
    either,
    flag,
    listed,
    mapping,
    number,
    optional,
    parse_json,
    plain,
    shown,
    text,
    whole,
)
from ovseg.compat.untrusted_types import component_or_name
from ovseg.registry import REFINERS

from .build import text_config
from .family import families
from .formats import TRUNK, canonical, has_text, is_eva

SIDE = whole(1, 16_384)  # of pictures and windows, in pixels
NAME = text(200)


def template(value: Any, place: str) -> str:
    """A prompt with one ``{}`` and no other braces."""
    prompt = text(300)(value, place)
    if prompt.count("{}") != 1 or prompt.count("{") + prompt.count("}") != 2:
        raise ValueError(f"{place} is {shown(value)}; expected a prompt that holds the placeholder {{}} once.")
    return prompt


PROTOCOL = {
    "short_side": optional(SIDE),
    "max_long_side": whole(1, 65_536),
    "size": optional(listed(SIDE, 2, 2)),
    "window": optional(SIDE),
    "stride": SIDE,
    "window_batch": whole(1, 1024),
    "view": optional(SIDE),
    "whole_view": flag,
    "templates": either(text(30, "name", "photo", "openai_7", "imagenet_80", "maskclip_85"), listed(template, 500, 1)),
    "logit_scale": number(1e-3, 1e4),
    "threshold": number(0, 1),
    "area_threshold": number(0, 1),
    "precision": text(10, "float32", "bfloat16", "float16"),
    "normalization": text(10, "weights", "imagenet"),
    "refine": listed(component_or_name(REFINERS), 8),
    "refine_image": text(10, "resized", "original"),
    "memory": whole(2**20, 2**36),
    "range": optional(listed(number(-1e12, 1e12), 2, 2)),
    "bands": optional(listed(whole(1, 65_535), 3, 1)),
}
PREPROCESS = {
    "mean": listed(number(-10, 10), 3, 3),
    "std": listed(number(1e-6, 10), 3, 3),
    "interpolation": text(20, "bicubic", "bilinear", "nearest", "random"),
}
DIM, COUNT, RATIO = whole(1, 65_536), whole(1, 1024), number(0.1, 64)
VISION = {
    "layers": either(COUNT, listed(COUNT, 4, 4)),
    "width": DIM,
    "head_width": DIM,
    "mlp_ratio": RATIO,
    "patch_size": optional(whole(1, 1024)),
    "image_size": either(SIDE, listed(SIDE, 2, 2)),
    "ls_init_value": optional(number(-100, 100)),
    "patch_dropout": number(0, 1),
    "no_ln_pre": flag,
    "pos_embed_type": text(20, "learnable", "sin_cos_2d"),
    "final_ln_after_pool": flag,
    "pool_type": text(10, "tok", "avg", "none"),
    "output_tokens": flag,
    "timm_model_name": text(100),
    "timm_pool": text(10, "", "avg", "token", "map"),
    "timm_proj": optional(text(10, "", "linear", "mlp", "none")),
    "timm_proj_bias": flag,
    "timm_drop": number(0, 1),
    "timm_drop_path": optional(number(0, 1)),
    "eva": mapping({"heads": optional(whole(1, 1024)), "reference": optional(whole(1, 1024)), "eps": number(0, 1)}),
}
TEXT = {
    "context_length": whole(1, 65_536),
    "vocab_size": whole(1, 10**7),
    "width": DIM,
    "heads": whole(1, 1024),
    "layers": COUNT,
    "mlp_ratio": RATIO,
    "ls_init_value": optional(number(-100, 100)),
    "embed_cls": flag,
    "pad_id": whole(0, 10**7),
    "no_causal_mask": flag,
    "final_ln_after_pool": flag,
    "pool_type": text(10, "first", "last", "argmax", "eos", "none"),
    "proj_bias": flag,
    "output_tokens": flag,
}
MODEL = {"embed_dim": DIM, "vision_cfg": mapping(VISION), "text_cfg": mapping(TEXT)}
OWN = {
    "name": NAME,
    "config": mapping(MODEL),
    "quick_gelu": flag,
    "preprocess": mapping(PREPROCESS),
    "training": plain,  # for people
    "card": mapping({"words": listed(NAME, 100_000), "protocol": mapping(PROTOCOL), "notice": text(500)}),
}
UNUSED = ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "timm_model_pretrained", "hf_model_pretrained")
"""Keys of open_clip's configs that say nothing about weights that are at hand."""


def own_metadata(content: Any, file: str) -> dict:
    """The ``ovseg`` metadata of a weights file: ``name``, ``config``, ``quick_gelu``, ``preprocess``, ``card``.

    Raises:
        ValueError: anything that ``ovseg export`` does not write.
    """
    place = f"the metadata of {file}"
    own = current(bounded(parse_json(content, place), place))
    return mapping(OWN)(own, place)


def folder_config(content: bytes, file: str) -> tuple[dict, dict]:
    """The model and the preprocessing of an ``open_clip_config.json``; of the model ``MODEL`` and ``quick_gelu``.

    Raises:
        ValueError: no such file, or a model that is not made of CLIP's parts.
    """
    config = bounded(parse_json(content, file), file)
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise ValueError(f"{file} is not a config of open_clip: expected a mapping with model_cfg.")
    model = {key: value for key, value in config["model_cfg"].items() if key in (*MODEL, "quick_gelu")}
    for part in ("vision_cfg", "text_cfg"):
        if isinstance(model.get(part), dict):
            model[part] = {key: value for key, value in model[part].items() if key not in UNUSED}
    preprocess = config.get("preprocess_cfg") or {}
    if isinstance(preprocess, dict):
        preprocess = {key: value for key, value in preprocess.items() if key in PREPROCESS}
    return (
        mapping(MODEL | {"quick_gelu": flag})(model, f"model_cfg of {file}"),
        mapping(PREPROCESS)(preprocess, f"preprocess_cfg of {file}"),
    )


def check_sizes(config: dict | None, state: dict[str, Tensor], file: str):
    """Compare an architecture that a file states with the tensors of the file, before anything is built.

    Raises:
        ValueError: it has other sizes than they, or not those that build a CLIP.
    """
    state, _ = canonical(state)
    vision, words = ((config or {}).get(part, {}) for part in ("vision_cfg", "text_cfg"))
    family = next((family for family in families() if family.matches(state, vision)), None)
    if config is None or not has_text(state):
        return  # no CLIP at all is explained elsewhere
    if "timm_model_name" in vision and not is_eva(state):
        _check_timm(vision["timm_model_name"], state, file)
    size = {key: vision[key] for key in ("image_size",) if key in vision}  # a table may have another shape than square
    own = {} if family is None else family.vision_config(state, size)
    wanted = {f"vision_cfg.{key}": value for key, value in own.items() if key != "image_size"}
    wanted |= {f"text_cfg.{key}": value for key, value in text_config(state).items() if key != "heads"}
    wanted["embed_dim"] = state["text_projection"].shape[1]
    stated = {f"text_cfg.{key}": value for key, value in words.items()} | {"embed_dim": config.get("embed_dim")}
    stated |= {f"vision_cfg.{key}": value for key, value in vision.items()}
    for key, value in wanted.items():
        if key not in stated:
            stated[key] = {"mlp_ratio": 4.0, "patch_size": None}.get(key.rpartition(".")[2], value)
        ratio = key.endswith("mlp_ratio")
        same = abs(stated[key] - value) < 0.01 if ratio else as_tuple(stated[key]) == as_tuple(value)
        if not same and not (key == "vision_cfg.patch_size" and value is None):
            raise ValueError(f"{file} states {key}={shown(stated[key])}, and its tensors have {shown(value)}.")
    if "image_size" in vision:
        _check_image_size(vision["image_size"], own.get("patch_size"), state, file)
    _check_heads(words.get("heads"), wanted["text_cfg.width"], "text_cfg.heads", file)
    if "visual.class_embedding" in state:
        width = own["width"]
        _check_heads(max(1, width // vision.get("head_width", 64)), width, "vision_cfg.head_width", file)


def as_tuple(layers) -> tuple:
    return tuple(layers) if isinstance(layers, (list, tuple)) else (layers,)


def _check_image_size(size: int | tuple, patch: int | None, state: dict[str, Tensor], file: str):
    """Whether pictures of that size have as many patches as the position table has rows."""
    height, width = as_tuple(size) * 2 if len(as_tuple(size)) == 1 else as_tuple(size)
    names = ("visual.positional_embedding", "visual.attnpool.positional_embedding", f"{TRUNK}pos_embed")
    name = next((name for name in names if name in state), None)
    if name is None:
        return
    if name == names[2]:
        patch = state[f"{TRUNK}patch_embed.proj.weight"].shape[-1]
    have, rows = state[name].shape[-2], 1 + (height // (patch or 32)) * (width // (patch or 32))
    if have != rows:
        stated = f"vision_cfg.image_size={height}×{width}"
        raise ValueError(f"{file} states {stated}, and its position table has {have} rows, not {rows}.")


def _check_heads(heads: int | None, width: int, key: str, file: str):
    if heads is not None and (heads > width or width % heads):
        raise ValueError(f"{file} states {key} that splits {width} channels into {heads} heads, which is impossible.")


@cache
def _timm_names() -> frozenset[str]:
    """The networks of timm that open_clip's own configs name."""
    visions = [open_clip.get_model_config(name).get("vision_cfg", {}) for name in open_clip.list_models()]
    return frozenset(vision["timm_model_name"] for vision in visions if "timm_model_name" in vision)


def _check_timm(name: str, state: dict[str, Tensor], file: str):
    import timm

    if name not in _timm_names():
        raise ValueError(f"{file} names the network {shown(name)}, which none of open_clip's architectures has.")
    with torch.device("meta"):
        wanted = sum(parameter.numel() for parameter in timm.create_model(name, num_classes=0).parameters())
    have = sum(tensor.numel() for key, tensor in state.items() if key.startswith("visual.trunk."))
    if wanted > 2 * have:
        raise ValueError(f"{file} names the network {name!r} of {wanted:,} numbers, and its tensors have {have:,}.")
