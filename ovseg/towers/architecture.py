"""An open_clip config as open_clip's own model, and a look at it before any weights are fetched."""

from collections.abc import Mapping
from dataclasses import fields

import torch
from open_clip.coca_model import CoCa, MultimodalCfg
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from torch import Tensor, nn

from .dilation import OUTPUT_STRIDE, dilated
from .tokenizer import has_transformers

OWN_CLASS = ("custom_text", "multimodal_cfg")  # keys of a config that asks for more than the plain ``CLIP``
OURS = (OUTPUT_STRIDE, "eva")  # keys of a ``vision_cfg`` that open_clip does not have


def has_own_class(config: Mapping | None) -> bool:
    """Whether a config must be built by open_clip as it is; otherwise its parts are read off the weights' shapes."""
    if config is None or "eva" in config.get("vision_cfg", {}):
        return False
    return (
        any(config.get(key) for key in OWN_CLASS)
        or bool(config["vision_cfg"].get("timm_model_name"))
        or bool(config["text_cfg"].get("hf_model_name"))
    )


def open_clip_model(config: Mapping, quick_gelu: bool = False, logit_bias: bool = False) -> nn.Module:
    """The untrained model of a config, of the class that ``open_clip.create_model`` would choose.

    Args:
        config: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and what else open_clip's configs have; ``vision_cfg`` may
            tell an ``output_stride``.
        quick_gelu: x·σ(1.702 x) instead of GELU; networks of timm have their own activation.
        logit_bias: whether there is one, as in models trained with the sigmoid loss.

    Raises:
        ValueError: a config that open_clip cannot build.
    """
    vision = {key: value for key, value in config["vision_cfg"].items() if key not in OURS}
    vision, text = vision | {"timm_model_pretrained": False}, config["text_cfg"] | {"hf_model_pretrained": False}
    if text.get("hf_model_name") and not has_transformers():
        raise ValueError(
            f"its words are read by {text['hf_model_name']}, for which the package transformers is missing. "
            "Type: pip install 'ovseg[hf]'."
        )
    options = {"quick_gelu": quick_gelu, "init_logit_bias": -10.0 if logit_bias else None}
    try:
        parts = [config["embed_dim"], _config(CLIPVisionCfg, vision), _config(CLIPTextCfg, text)]
        if config.get("multimodal_cfg"):
            multimodal = _config(MultimodalCfg, config["multimodal_cfg"])
            model = CoCa(parts[0], multimodal, parts[2], parts[1], **options)
        elif config.get("custom_text") or text.get("hf_model_name"):
            model = CustomTextCLIP(*parts, **options)
        else:
            model = CLIP(*parts, **options)
    except (AssertionError, RuntimeError, TypeError, ImportError, OSError) as error:
        raise ValueError(f"open_clip cannot build this architecture: {str(error)[:200]}") from error
    if stride := config["vision_cfg"].get(OUTPUT_STRIDE):
        dilated(model.visual, vision, config["embed_dim"], stride)
    return model


def _config(kind: type, values: Mapping):
    names = {field.name for field in fields(kind)}
    return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in names})


def sketch(config: Mapping, quick_gelu: bool = False, logit_bias: bool = False) -> nn.Module:
    """``open_clip_model`` without memory: shapes alone, on the meta device."""
    with torch.device("meta"):
        return open_clip_model(config, quick_gelu, logit_bias)


def in_names_of(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an open_clip model in the names and shapes of that model, which may hold its text side elsewhere."""
    own = model.state_dict()
    apart = any(name.startswith("text.") for name in own)
    renamed = {}
    for name, value in state.items():
        if apart and name not in own and f"text.{name}" in own:
            name = f"text.{name}"
        elif not apart and name.startswith("text."):
            name = name.removeprefix("text.")
        if name.endswith(("position_ids", "attn_mask")) and name not in own:
            continue
        if name in ("logit_scale", "logit_bias") and name in own and value.numel() == 1:
            value = value.reshape(own[name].shape)
        renamed[name] = value
    return renamed
