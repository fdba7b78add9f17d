"""From names and shapes of a state dict to a tower: OpenAI and open_clip name their CLIP parameters alike."""

from functools import partial

import open_clip
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, QuickGELU
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import LayerNorm, VisionTransformer
from timm.models.eva import Eva
from torch import Tensor, nn

from .base import Preprocess, Tower, TowerCard
from .eva import EvaTower, eva_visual, is_eva, stored_rotations, timm_names
from .resnet import ResNetTower
from .vit import ViTTower

PLAIN = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}  # of CLIP as OpenAI made it
EXTRAS = ("input_resolution", "context_length", "vocab_size")  # scalars inside OpenAI's files


def make_tower(visual: nn.Module, clip: nn.Module | None, preprocess: Preprocess, card: TowerCard) -> Tower:
    """The tower class that fits an open_clip image module.

    Raises:
        ValueError: an image module that cannot be opened.
    """
    if isinstance(visual, VisionTransformer):
        return ViTTower(visual, clip, preprocess, card)
    if isinstance(visual, ModifiedResNet):
        return ResNetTower(visual, clip, preprocess, card)
    if isinstance(getattr(visual, "trunk", None), Eva):
        return EvaTower(visual, clip, preprocess, card)
    raise ValueError(
        f"{card.name}: dense features need open_clip's VisionTransformer or ModifiedResNet, or EVA-02; this image "
        f"tower is a {type(visual).__name__}. Choose for example ViT-B-16/openai, ViT-L-14/openai, RN50/openai or "
        "EVA02-B-16/merged2b_s8b_b131k."
    )


def vision_config(state: dict[str, Tensor]) -> dict:
    """open_clip's ``vision_cfg`` read off the shapes of an image tower (names without the prefix ``visual.``).

    The width of a head is not in the shapes: 64, as in all OpenAI towers, unless the caller knows better.
    """
    if "class_embedding" in state:
        width, _, patch, _ = state["conv1.weight"].shape
        grid = round((state["positional_embedding"].shape[0] - 1) ** 0.5)
        layers = len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")})
        ratio = state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0] / width
        return {"layers": layers, "width": width, "patch_size": patch, "image_size": patch * grid, "mlp_ratio": ratio}
    counts = [len({key.split(".")[1] for key in state if key.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4)]
    side = round((state["attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    width = state["layer1.0.conv1.weight"].shape[0]
    return {"layers": tuple(counts), "width": width, "patch_size": None, "image_size": 32 * side}


def text_config(state: dict[str, Tensor]) -> dict:
    """open_clip's ``text_cfg`` read off the shapes of a whole CLIP."""
    width = state["ln_final.weight"].shape[0]
    layers = len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks.")})
    return {
        "context_length": state["positional_embedding"].shape[0],
        "vocab_size": state["token_embedding.weight"].shape[0],
        "width": width,
        "heads": max(1, width // 64),
        "layers": layers,
    }


def visual_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}


def known_config(vision: dict, text: dict, embed_dim: int) -> dict | None:
    """The plain open_clip architecture with these shapes, if any: it knows head widths, which shapes do not tell.

    The size of the pictures is that of ``vision``, because one architecture is trained at several.
    """
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        known = {"mlp_ratio": 4.0, "patch_size": None} | config.get("vision_cfg", {})
        # CoCa, CLIPA and others share these shapes but pool or normalise in another way, which their files show
        if config.get("embed_dim") != embed_dim or "multimodal_cfg" in config or not PLAIN >= known.keys():
            continue
        same_vision = (
            as_tuple(known["layers"]) == as_tuple(vision["layers"])
            and (known["width"], known["patch_size"]) == (vision["width"], vision["patch_size"])
            and abs(known["mlp_ratio"] - vision.get("mlp_ratio", 4.0)) < 1e-3  # configs round it to four digits
        )
        same_text = all(config["text_cfg"].get(key) == text[key] for key in ("width", "layers"))
        if same_vision and same_text:
            return config | {"vision_cfg": config["vision_cfg"] | {"image_size": vision["image_size"]}}
    return None


def as_tuple(layers) -> tuple[int, ...]:
    return tuple(layers) if isinstance(layers, (list, tuple)) else (layers,)


def build_clip(state: dict[str, Tensor], quick_gelu: bool, config: dict | None = None) -> CLIP:
    """A whole open_clip CLIP in float32 with the given weights.

    Args:
        state: names and tensors as OpenAI's and open_clip's files have them; of EVA-02 also as EVA-CLIP's.
        quick_gelu: x·σ(1.702 x) instead of GELU.
        config: ``embed_dim``, ``vision_cfg``, ``text_cfg``; read off the shapes where not given.

    Raises:
        ValueError: these are not the weights of a CLIP, or not of the given architecture.
    """
    state = {key: value.float() for key, value in state.items() if key not in EXTRAS}
    eva, rotations = is_eva(state), stored_rotations(state)
    state = timm_names(state) if eva else state
    if "text_projection" not in state or not visual_part(state):
        some = ", ".join(list(state)[:4])
        raise ValueError(
            f"these weights are not those of a CLIP: expected names such as visual.conv1.weight; found "
            f"{len(state)} tensors ({some}, …). Give an OpenAI or open_clip checkpoint, of a ViT, a ResNet or EVA-02."
        )
    if eva:
        return load_exactly(_eva_clip(state, quick_gelu, config or {}, rotations), state)
    if config is None:
        vision, text = vision_config(visual_part(state)), text_config(state)
        embed_dim = state["text_projection"].shape[1]
        config = known_config(vision, text, embed_dim) or {
            "embed_dim": embed_dim,
            "vision_cfg": vision,
            "text_cfg": text,
        }
        config = {key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}
        config["text_cfg"] = config["text_cfg"] | {
            "context_length": text["context_length"],
            "vocab_size": text["vocab_size"],
        }
    model = CLIP(
        config["embed_dim"],
        CLIPVisionCfg(**config["vision_cfg"]),
        CLIPTextCfg(**config["text_cfg"]),
        quick_gelu=quick_gelu,
    )
    return load_exactly(model, state)


def _eva_clip(state: dict[str, Tensor], quick_gelu: bool, config: dict, rotations: dict) -> CLIP:
    """A whole CLIP around an EVA-02 image tower; all but the rotations is read off the shapes."""
    text = text_config(state)
    text["heads"] = config.get("text_cfg", {}).get("heads", text["heads"])
    settings = config.get("vision_cfg", {}).get("eva", rotations)
    vision = CLIPVisionCfg(layers=0, width=64, patch_size=1, image_size=1)  # its place is taken
    model = CLIP(state["text_projection"].shape[1], vision, CLIPTextCfg(**text), quick_gelu=quick_gelu)
    model.visual = eva_visual(state, **settings)
    return model


def load_exactly(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Load a state dict whose names and shapes must be those of the model; the model, in evaluation mode.

    Raises:
        ValueError: they are not, with what is missing, surplus or of another shape.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state and not key.endswith(("num_batches_tracked", "attn_mask"))]
    surplus = [key for key in state if key not in own]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if missing or surplus or shapes:
        parts = [
            f"{len(found)} {what} ({', '.join(found[:3])}{', …' if len(found) > 3 else ''})"
            for what, found in (("tensors missing", missing), ("unexpected", surplus), ("of another shape", shapes))
            if found
        ]
        raise ValueError(
            f"the weights do not fit the architecture: {'; '.join(parts)}. Name the architecture they were made for."
        )
    model.load_state_dict(state, strict=False)
    return model.eval()


def build_visual(state: dict[str, Tensor], heads: int, quick_gelu: bool = True, eps: float = 1e-5) -> Tower:
    """An image tower alone, from weights in OpenAI's naming without the prefix ``visual.``.

    Args:
        state: names and tensors.
        heads: attention heads of a block (ViT) or of the attention pool (ResNet).
        quick_gelu, eps: activation and layer-norm epsilon of a ViT.
    """
    config = vision_config(state)
    if "class_embedding" in state:
        visual = VisionTransformer(
            image_size=config["image_size"],
            patch_size=config["patch_size"],
            width=config["width"],
            layers=config["layers"],
            heads=heads,
            mlp_ratio=config["mlp_ratio"],
            output_dim=state["proj"].shape[1],
            act_layer=QuickGELU if quick_gelu else nn.GELU,
            norm_layer=partial(LayerNorm, eps=eps),
        )
    else:
        out = state["attnpool.c_proj.weight"].shape[0]
        visual = ModifiedResNet(list(config["layers"]), out, heads, config["image_size"], config["width"])
    state = {key: value.float() for key, value in state.items()}
    visual.load_state_dict(state, strict="class_embedding" in state)
    return make_tower(visual, None, Preprocess(), TowerCard("image tower"))
