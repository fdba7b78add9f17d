"""A tower as one weights file that says what it needs: ``load_tower`` needs no other options to read it back."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from open_clip.model import QuickGELU
from torch import Tensor

from ovseg.compat.checkpoint import save_safetensors, state_hash

from .architecture import sketch
from .base import Tower
from .build import check_fit, text_config
from .formats import canonical, pruned_token_table
from .tuning import plain_state


def save_tower(
    tower: Tower,
    path: str | Path,
    name: str,
    protocol: Mapping | None = None,
    beside: Mapping[str, Tensor] | None = None,
    notes: Mapping | None = None,
) -> str:
    """Write a tower with both sides in the names of open_clip's modules; tuned weights become plain ones.

    Args:
        tower: it is not changed.
        path: a ``.safetensors`` file.
        name: what the weights shall be called in results.
        protocol: prediction settings that suit these weights; those of the tower unless given.
        beside: further tensors of a method, under names that begin with ``BESIDE``; ``load_tower`` passes them over.
        notes: further metadata.

    Returns:
        the weights' hash.

    Raises:
        ValueError: a tower without a text side, or one that its recorded architecture does not build again.
    """
    if tower.clip is None:
        raise ValueError(f"{tower.card.name} has no text tower; only whole CLIP weights can be written as such.")
    state = {k: v for k, v in plain_state(tower.clip).items() if not k.endswith("attn_mask")}
    if tower.card.config is None:
        state, config, quick_gelu = _by_shapes(tower, state)
    else:
        config = tower.card.config | {"vision_cfg": tower.recorded_config()}
        quick_gelu = config.pop("quick_gelu")
        check_fit(sketch(config, quick_gelu, "logit_bias" in state), state)
    settings = dict(tower.card.protocol if protocol is None else protocol)
    known = {"words": tower.card.words, "protocol": settings, "notice": tower.card.notice}
    own = {
        "name": name,
        "config": config,
        "quick_gelu": quick_gelu,
        "preprocess": asdict(tower.preprocess),
        "card": {key: value for key, value in known.items() if value},
    }
    tensors = pruned_token_table(state) | dict(beside or {})
    save_safetensors(path, tensors, {"ovseg": json.dumps(own)} | dict(notes or {}))
    return state_hash(state)


def _by_shapes(tower: Tower, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict, bool]:
    """Weights in canonical names, the config that builds them and their activation, of a tower read off its shapes."""
    side = getattr(tower.clip, "text", tower.clip)
    state, _ = canonical(state)
    text = text_config(state)
    text["heads"] = side.transformer.resblocks[0].attn.num_heads
    vision = tower.recorded_config()
    config = {"embed_dim": state["text_projection"].shape[1], "vision_cfg": vision, "text_cfg": text}
    return state, config, isinstance(side.transformer.resblocks[0].mlp.gelu, QuickGELU)
