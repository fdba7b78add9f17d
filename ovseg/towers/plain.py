"""Modules of open_clip from its own configs, without the half of a model that is not wanted."""

import open_clip
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import nn

SHAPES = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}  # of CLIP as OpenAI made it
NO_VISION = CLIPVisionCfg(layers=0, width=64, patch_size=1, image_size=1)
NO_TEXT = CLIPTextCfg(context_length=1, vocab_size=1, width=64, heads=1, layers=1)


def open_clip_visual(embed_dim: int, vision: CLIPVisionCfg, quick_gelu: bool) -> nn.Module:
    """The image module of an open_clip model."""
    return CLIP(embed_dim, vision, NO_TEXT, quick_gelu=quick_gelu).visual


def open_clip_around(visual: nn.Module, embed_dim: int, text: CLIPTextCfg, quick_gelu: bool) -> CLIP:
    """An open_clip model with an image module of ours."""
    model = CLIP(embed_dim, NO_VISION, text, quick_gelu=quick_gelu)
    model.visual = visual
    return model


def known_config(vision: dict, text: dict, embed_dim: int) -> dict | None:
    """The plain open_clip architecture with these shapes, if any: it knows head widths, which shapes do not tell.

    The size of the pictures is that of ``vision``, because one architecture is trained at several.
    """
    if "layers" not in vision:
        return None
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        if config.get("embed_dim") != embed_dim or "multimodal_cfg" in config or not same_vision(config, vision):
            continue
        if all(config["text_cfg"].get(key) == text[key] for key in ("width", "layers")):
            return config | {"vision_cfg": config["vision_cfg"] | {"image_size": vision["image_size"]}}
    return None


def same_vision(config: dict, vision: dict) -> bool:
    """Whether a plain architecture has an image tower of these shapes.

    CoCa, CLIPA and others share shapes but pool or normalize in another way, which their files show.
    """
    known = {"mlp_ratio": 4.0, "patch_size": None} | config.get("vision_cfg", {})
    return (
        known.keys() <= SHAPES
        and as_tuple(known["layers"]) == as_tuple(vision["layers"])
        and (known["width"], known["patch_size"]) == (vision["width"], vision["patch_size"])
        and abs(known["mlp_ratio"] - vision.get("mlp_ratio", 4.0)) < 1e-3  # configs round it to four digits
    )


def known_head_width(vision: dict) -> int | None:
    """Channels of a head in the plain image towers of these shapes; None: no architecture has them."""
    configs = map(open_clip.get_model_config, open_clip.list_models())
    return next((c["vision_cfg"].get("head_width", 64) for c in configs if same_vision(c, vision)), None)


def known_text_heads(text: dict) -> int | None:
    """Heads of the plain text towers of this width and depth; None: no architecture has them."""
    configs = (open_clip.get_model_config(name)["text_cfg"] for name in open_clip.list_models())
    alike = (c for c in configs if (c.get("width"), c.get("layers")) == (text["width"], text["layers"]))
    return next((c["heads"] for c in alike if "heads" in c), None)


def as_tuple(layers) -> tuple[int, ...]:
    return tuple(layers) if isinstance(layers, (list, tuple)) else (layers,)
