"""A tower as one weights file that says what it needs: ``load_tower`` reads it back without being told anything."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from open_clip.model import QuickGELU
from torch import Tensor

from ovseg.compat.checkpoint import save_safetensors, state_hash

from .base import Tower
from .build import text_config, vision_config, visual_part
from .eva import EvaTower, eva_settings, timm_names
from .tuning import plain_state


def save_tower(
    tower: Tower,
    path: str | Path,
    name: str,
    protocol: Mapping | None = None,
    beside: Mapping[str, Tensor] | None = None,
    notes: Mapping | None = None,
) -> str:
    """Write a tower with both sides in OpenAI's names (EVA-02: timm's); tuned weights become plain ones.

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
    clip = tower.clip
    state = {key: value for key, value in plain_state(clip).items() if not key.endswith("attn_mask")}
    if isinstance(tower, EvaTower):
        state, text_side = timm_names(state), getattr(clip, "text", clip)
        vision = {"eva": eva_settings(tower)}
    else:
        vision, text_side = vision_config(visual_part(state)), clip
    text = text_config(state)
    if "visual.class_embedding" in state:
        vision["head_width"] = vision["width"] // tower.blocks[-1].heads
    text["heads"] = text_side.transformer.resblocks[0].attn.num_heads
    settings = dict(tower.card.protocol if protocol is None else protocol)
    known = {"words": tower.card.words, "protocol": settings, "notice": tower.card.notice}
    own = {
        "name": name,
        "config": {"embed_dim": state["text_projection"].shape[1], "vision_cfg": vision, "text_cfg": text},
        "quick_gelu": isinstance(text_side.transformer.resblocks[0].mlp.gelu, QuickGELU),
        "preprocess": asdict(tower.preprocess),
        "card": {key: value for key, value in known.items() if value},
    }
    save_safetensors(path, _pruned(state) | dict(beside or {}), {"ovseg": json.dumps(own)} | dict(notes or {}))
    return state_hash(state)


def _pruned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the rows of tokens that no training saw, which are zero; ``load_tower`` puts them back."""
    table = state.get("token_embedding.weight")
    rows = None if table is None else table.any(1).nonzero()[:, 0]
    if rows is None or len(rows) == len(table):
        return state
    return state | {"token_embedding.weight": table[rows], "token_rows": rows.int()}
