"""From the names and shapes of a state dict to a tower: its family builds the image side, open_clip the text side."""

from collections.abc import Mapping
from dataclasses import replace

from open_clip.model import CLIPTextCfg
from torch import Tensor, nn

from .architecture import has_own_class, in_names_of, open_clip_model, sketch
from .base import Preprocess, Tower, TowerCard
from .family import TowerFamily, families
from .formats import canonical, has_authors_names, has_text
from .identity import identity
from .plain import known_config, known_head_width, known_text_heads, open_clip_around

EXAMPLES = "ViT-B-16/openai, ViT-L-14/openai, RN50/openai or EVA02-B-16/merged2b_s8b_b131k"


def make_tower(visual: nn.Module, clip: nn.Module | None, preprocess: Preprocess, card: TowerCard) -> Tower:
    """The tower of the family that opens an open_clip image module; its card gets its identity.

    Raises:
        ValueError: an image module that cannot be opened.
    """
    family = next((family for family in families() if family.opens(visual)), None)
    if family is None:
        raise ValueError(
            f"{card.name}: dense features need a Vision Transformer whose blocks can be opened, or a convolutional "
            f"network; this image tower is a {kind_of(visual)}. Choose for example {EXAMPLES}."
        )
    tower = family(visual, clip, preprocess, card)
    tower.card = replace(card, identity=identity(tower))
    return tower


def kind_of(visual: nn.Module) -> str:
    """The class of an image module, that of timm where it wraps one."""
    return type(getattr(visual, "trunk", visual)).__name__


def look_at(config: Mapping, name: str):
    """Refuse an architecture that cannot be read densely, before any of its weights are there.

    Args:
        config: open_clip's, as ``architecture.open_clip_model`` takes it.
        name: of the weights, for the message.

    Raises:
        ValueError: no family opens it, or open_clip cannot build it.
    """
    try:
        model = sketch(config)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    make_tower(model.visual, None, Preprocess(), TowerCard(name))


def family_of(state: Mapping[str, Tensor], vision: Mapping, alone: bool = False) -> type[TowerFamily]:
    """The family of weights in canonical names; ``alone``: no text side is needed.

    Raises:
        ValueError: weights of no family, or without the text side.
    """
    family = next((family for family in families() if family.matches(state, vision)), None)
    if family is None or not (alone or has_text(state)):
        some = ", ".join(list(state)[:4])
        raise ValueError(
            f"these weights are not those of a CLIP: expected names such as visual.conv1.weight; found "
            f"{len(state)} tensors ({some}, …). Give an OpenAI or open_clip checkpoint, of a ViT, a ResNet or EVA-02."
        )
    return family


def merged(first: Mapping, second: Mapping) -> dict:
    """Both configs, the second one's values where both have one, also inside of nested ones."""
    nested = {key for key in first.keys() & second.keys() if isinstance(first[key], Mapping)}
    return {**first, **second, **{key: merged(first[key], second[key]) for key in nested}}


def text_config(state: Mapping[str, Tensor]) -> dict:
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


def build_as_recorded(state: dict[str, Tensor], quick_gelu: bool, config: dict) -> nn.Module:
    """The model of open_clip's own class for a config, in float32 with the given weights.

    The shapes are compared on a sketch without memory first, so that a config cannot ask for more than the file holds.

    Raises:
        ValueError: the weights are not of that architecture.
    """
    bias = "logit_bias" in state
    drawn = sketch(config, quick_gelu, bias)
    state = in_names_of(drawn, state)
    check_fit(drawn, state)
    return load_exactly(open_clip_model(config, quick_gelu, bias), state)


def build_clip(state: dict[str, Tensor], quick_gelu: bool, config: dict | None = None) -> nn.Module:
    """A whole open_clip model in float32 with the given weights.

    Args:
        state: names and tensors as ``formats.plain`` leaves them.
        quick_gelu: x·σ(1.702 x) instead of GELU.
        config: ``embed_dim``, ``vision_cfg``, ``text_cfg``; read off the shapes where not given.

    Raises:
        ValueError: these are not the weights of a CLIP, or not of the given architecture.
    """
    if has_own_class(config) and not has_authors_names(state):
        return build_as_recorded(state, quick_gelu, config)
    state, recorded = canonical(state)
    vision = merged(recorded, (config or {}).get("vision_cfg", {}))
    family = family_of(state, vision)
    vision, text = family.vision_config(state, vision), text_config(state)
    embed_dim = (config or {}).get("embed_dim", state["text_projection"].shape[1])
    if config is None and (known := known_config(vision, text, embed_dim)):
        vision = known["vision_cfg"]
        text = known["text_cfg"] | {key: text[key] for key in ("context_length", "vocab_size")}
    elif config is None and "layers" in vision:
        vision = {"head_width": known_head_width(vision) or 64} | vision
        text["heads"] = known_text_heads(text) or text["heads"]
    elif config is not None:
        text = config.get("text_cfg", text)
    visual = family.from_state(state, vision, quick_gelu, embed_dim)
    return load_exactly(open_clip_around(visual, embed_dim, CLIPTextCfg(**text), quick_gelu), state)


def load_exactly(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Load a state dict whose names and shapes must be those of a float32 model; the model, in evaluation mode.

    Raises:
        ValueError: see ``check_fit``.
    """
    check_fit(model, state)
    model.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    return model.eval()


def check_fit(model: nn.Module, state: Mapping[str, Tensor]):
    """Compare names and shapes of a state dict with a model's.

    Raises:
        ValueError: they are not the same, with what is missing, surplus or of another shape.
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
            f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
            for what, names in (("tensors missing", missing), ("unexpected", surplus), ("of another shape", shapes))
            if names
        ]
        raise ValueError(
            f"the weights do not fit the architecture: {'; '.join(parts)}. Name the architecture they were made for."
        )


def build_visual(
    state: dict[str, Tensor],
    heads: int | None = None,
    quick_gelu: bool = True,
    eps: float | None = None,
    config: Mapping | None = None,
) -> Tower:
    """An image tower alone.

    Args:
        state: names and tensors in OpenAI's naming, or EVA-CLIP's, without the prefix ``visual.``.
        heads: attention heads of a block (ViT) or of the attention pool (ResNet); None: 64 wide.
        quick_gelu, eps: activation and layer-norm epsilon; None: that of the family.
        config: more of the ``vision_cfg``, as far as the shapes do not tell it.

    Raises:
        ValueError: weights of no family, or not of the given architecture.
    """
    state, recorded = canonical({f"visual.{name}": value for name, value in state.items()})
    vision = merged(recorded, config or {})
    family = family_of(state, vision, alone=True)
    vision = family.vision_config(state, merged(vision, family.attention_config(state, heads, eps)))
    visual = family.from_state(state, vision, quick_gelu)
    load_exactly(visual, {name.removeprefix("visual."): value for name, value in state.items()})
    return make_tower(visual, None, Preprocess(), TowerCard("image tower"))
