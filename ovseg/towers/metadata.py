"""What a weights file says beside its tensors, read as data: names from lists, numbers in ranges, sizes as the tensors
have them.

Two layouts are read: the ``ovseg`` metadata of our own files, and ``open_clip_config.json`` of folders and of the hub.
Names that something is fetched by (``hf_model_name``) are only those of open_clip's own architectures, networks of timm
are built without their pretrained weights, and a tokenizer is taken from the weights' own folder first.
"""

import re
from functools import cache
from typing import Any

import open_clip
import timm
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

from .architecture import has_own_class
from .build import text_config
from .family import families
from .formats import TRUNK, canonical, has_authors_names, has_text
from .positions import as_size

SIDE = whole(1, 16_384)  # of pictures and windows, in pixels
NAME = text(200)


def template(value: Any, place: str) -> str:
    """A prompt with one ``{}`` and no other braces."""
    prompt = text(300)(value, place)
    if prompt.count("{}") != 1 or prompt.count("{") + prompt.count("}") != 2:
        raise ValueError(f"{place} is {shown(value)}; expected a prompt that holds the placeholder {{}} once.")
    return prompt


def timm_name(value: Any, place: str) -> str:
    """A network of timm, by the name of its architecture alone."""
    name = text(100)(value, place)
    if not re.fullmatch(r"[a-z0-9_]+", name) or not timm.is_model(name):
        raise ValueError(f"{place} is {shown(value)}, which is no network of timm (timm.list_models()).")
    return name


@cache
def _known_text_models() -> frozenset[str]:
    configs = (open_clip.get_model_config(name)["text_cfg"] for name in open_clip.list_models())
    return frozenset(config["hf_model_name"] for config in configs if config.get("hf_model_name"))


def text_model(value: Any, place: str) -> str:
    """A text model of Hugging Face that one of open_clip's architectures has."""
    name = text(200)(value, place)
    if name not in _known_text_models():
        raise ValueError(f"{place} is {shown(value)}, which none of open_clip's architectures has.")
    return name


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
TRANSFORMER = {
    "act_kwargs": optional(mapping({"approximate": text(10, "tanh", "none")})),
    "norm_kwargs": optional(mapping({"eps": number(0, 1)})),
    "block_type": optional(text(20, "default", "custom")),
    **{key: flag for key in "qk_norm scaled_cosine_attn scale_heads scale_attn_inner scale_attn scale_fc".split()},
}
TOKENIZER = {"clean": text(20, "lower", "whitespace", "canonicalize"), "strip_sep_token": flag}
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
    "attentional_pool": flag,
    "attn_pooler_queries": COUNT,
    "attn_pooler_heads": COUNT,
    **TRANSFORMER,
    "timm_model_name": timm_name,
    "timm_pool": text(10, "", "avg", "token", "map", "abs_attn", "rot_attn"),
    "timm_proj": optional(text(10, "", "linear", "mlp", "none")),
    "timm_proj_bias": flag,
    "timm_drop": number(0, 1),
    "timm_drop_path": optional(number(0, 1)),
    "output_stride": optional(whole(8, 32)),
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
    "eos_id": whole(0, 10**7),
    **TRANSFORMER,
    "proj_type": text(10, "linear", "none"),
    "hf_model_name": text_model,
    "hf_tokenizer_name": text(200),
    "hf_proj_type": optional(text(10, "", "linear", "mlp")),
    "hf_pooler_type": optional(text(30, "mean_pooler", "max_pooler", "cls_pooler", "cls_last_hidden_state_pooler")),
    "tokenizer_kwargs": optional(mapping(TOKENIZER)),
    "tokenizer_mode": optional(text(10, "clips")),
    "no_causal_mask": flag,
    "final_ln_after_pool": flag,
    "pool_type": text(10, "first", "last", "argmax", "eos", "none"),
    "proj_bias": flag,
    "output_tokens": flag,
}
DECODER = {key: check for key, check in TEXT.items() if not key.startswith(("hf_", "tokenizer_"))}
DECODER |= {"dim_head": DIM, "n_queries": COUNT, "attn_pooler_heads": COUNT}
MODEL = {
    "embed_dim": DIM,
    "vision_cfg": mapping(VISION),
    "text_cfg": mapping(TEXT),
    "multimodal_cfg": mapping(DECODER),
    "custom_text": flag,
    "quick_gelu": flag,
}
LARGEST_GRID = 2**16  # patches that a config may ask a position table for
OWN = {
    "name": NAME,
    "config": mapping(MODEL),
    "quick_gelu": flag,
    "preprocess": mapping(PREPROCESS),
    "training": plain,  # for people
    "card": mapping({"words": listed(NAME, 100_000), "protocol": mapping(PROTOCOL), "notice": text(500)}),
}
UNUSED = ("timm_model_pretrained", "hf_model_pretrained")
"""Keys of open_clip's configs that say nothing about weights that are at hand."""


def own_metadata(content: Any, file: str) -> dict:
    """The ``ovseg`` metadata of a weights file: ``name``, ``config``, ``quick_gelu``, ``preprocess``, ``card``.

    Raises:
        ValueError: anything that ``ovseg export`` does not write.
    """
    place = f"the metadata of {file}"
    own = mapping(OWN)(current(bounded(parse_json(content, place), place)), place)
    return own | ({"preprocess": statistics_of(own["preprocess"])} if "preprocess" in own else {})


def folder_config(content: bytes, file: str) -> tuple[dict, dict]:
    """The model and the preprocessing of an ``open_clip_config.json``; of the model ``MODEL`` and ``quick_gelu``.

    Raises:
        ValueError: no such file, or a model that is not made of CLIP's parts.
    """
    config = bounded(parse_json(content, file), file)
    if not isinstance(config, dict) or not isinstance(config.get("model_cfg"), dict):
        raise ValueError(f"{file} is not a config of open_clip: expected a mapping with model_cfg.")
    preprocess = config.get("preprocess_cfg") or {}
    if isinstance(preprocess, dict):
        preprocess = {key: value for key, value in preprocess.items() if key in PREPROCESS}
    model = model_config(config["model_cfg"], f"model_cfg of {file}")
    return model, statistics_of(mapping(PREPROCESS)(preprocess, f"preprocess_cfg of {file}"))


def model_config(config: dict, place: str) -> dict:
    """The parts of an open_clip config that say how a model is built, checked.

    Raises:
        ValueError: a model that is not made of CLIP's parts, or with more patches than any has.
    """
    model = {key: value for key, value in config.items() if key in MODEL}
    for part in ("vision_cfg", "text_cfg"):
        if isinstance(model.get(part), dict):
            model[part] = {key: v for key, v in model[part].items() if key not in UNUSED}
    if isinstance(model.get("text_cfg"), dict):
        model["text_cfg"] = {key: v for key, v in model["text_cfg"].items() if v is not None}
    model = mapping(MODEL)(model, place)
    for part in ("embed_dim", "vision_cfg", "text_cfg"):
        if part not in model:
            raise ValueError(f"{place} is not a config of open_clip: it lacks {part}.")
    vision = model["vision_cfg"]
    height, width = (side // (vision.get("patch_size") or 16) for side in as_size(vision.get("image_size", 224)))
    if height * width > LARGEST_GRID:
        raise ValueError(f"{place} states pictures of {height}×{width} patches, more than any model has.")
    return model


def statistics_of(preprocess: dict) -> dict:
    """Without the way of resizing, which is a setting of the prediction here."""
    return {key: value for key, value in preprocess.items() if key != "interpolation"}


def check_sizes(config: dict | None, state: dict[str, Tensor], file: str):
    """Compare an architecture that a file states with the tensors of the file, before anything is built.

    Raises:
        ValueError: it has other sizes than they, or not those that build a CLIP.
    """
    if has_own_class(config) and not has_authors_names(state):
        return  # built as it is told, after a comparison of all shapes
    state, _ = canonical(state)
    vision, words = ((config or {}).get(part, {}) for part in ("vision_cfg", "text_cfg"))
    family = next((family for family in families() if family.matches(state, vision)), None)
    if config is None or not has_text(state):
        return  # no CLIP at all is explained elsewhere
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
