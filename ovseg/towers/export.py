"""A tower as one weights file that says what it needs: ``load_tower`` needs no other options to read it back."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from open_clip.model import QuickGELU
from torch import Tensor

from ovseg.compat.checkpoint import save_safetensors, state_hash

from .base import Tower
from .build import text_config
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
        ValueError: a tower without a text side.
    """
    if tower.clip is None:
        raise ValueError(f"{tower.card.name} has no text tower; only whole CLIP weights can be written as such.")
    text_side = getattr(tower.clip, "text", tower.clip)
    state, _ = canonical({k: v for k, v in plain_state(tower.clip).items() if not k.endswith("attn_mask")})
    text = text_config(state)
    text["heads"] = text_side.transformer.resblocks[0].attn.num_heads
    settings = dict(tower.card.protocol if protocol is None else protocol)
    known = {"words": tower.card.words, "protocol": settings, "notice": tower.card.notice}
    own = {
        "name": name,
        "config": {
            "embed_dim": state["text_projection"].shape[1],
            "vision_cfg": tower.recorded_config(),
            "text_cfg": text,
        },
        "quick_gelu": isinstance(text_side.transformer.resblocks[0].mlp.gelu, QuickGELU),
        "preprocess": asdict(tower.preprocess),
        "card": {key: value for key, value in known.items() if value},
    }
    tensors = pruned_token_table(state) | dict(beside or {})
    save_safetensors(path, tensors, {"ovseg": json.dumps(own)} | dict(notes or {}))
    return state_hash(state)
