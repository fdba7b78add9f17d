"""What is known of a weights file that records nothing besides its tensors: its name, its contents, guesses.

A published file is known by the name of its repository or, where that is unique, its own.  What remains unknown is
taken as in CLIP and said in one warning.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import open_clip
from torch import Tensor

from . import formats
from .base import Preprocess
from .build import text_config
from .family import families
from .plain import known_config, known_head_width, known_text_heads


@dataclass(frozen=True)
class Facts:
    """The activation and the statistics of a file's weights."""

    quick_gelu: bool
    preprocess: Preprocess


def statistics(record: Mapping) -> Preprocess:
    """The normalization of pictures that a record of open_clip tells."""
    return Preprocess(tuple(record["mean"]), tuple(record["std"])) if "mean" in record else Preprocess()


def published(path: Path, state: Mapping[str, Tensor] | None = None) -> dict | None:
    """open_clip's record of a published file, known by its name or its folder's.

    Args:
        path: of a file, or of any name inside a folder of weights.
        state: the file's tensors.  The names OpenAI uses are common ones, so only files made as theirs go by them.
    """
    records = [open_clip.get_pretrained_cfg(model, tag) for model, tag in open_clip.list_pretrained()]
    # on the hub the repository is named after the weights; the files in it are called alike everywhere
    known = {cfg["hf_hub"].split("/")[1]: cfg for cfg in records if cfg.get("hf_hub")}
    for record in records:
        common = "openaipublic" in (record.get("url") or "")
        if record.get("url") and (not common or (state is not None and _as_openai(state))):
            known[Path(record["url"]).name] = record
    names = [path.name, path.stem, path.parent.name, *(p.name.split("--")[-1] for p in path.parents if "--" in p.name)]
    return next((known[name] for name in names if name and name in known), None)


def _as_openai(state: Mapping[str, Tensor]) -> bool:
    return formats.activation(state) is True or ("visual.conv1.weight" in state and formats.is_half(state))


def facts_of(
    path: Path,
    state: dict[str, Tensor],
    arch: str | None,
    config: Mapping | None,
    quick_gelu: bool | None,
    preprocess: Preprocess | None,
    described: bool = False,
) -> Facts:
    """Activation and statistics of a file that does not record them; guesses are said in one warning.

    Args:
        path: of the file.
        state: its tensors in plain names.
        arch, config: the architecture that the user names, and its open_clip config.
        quick_gelu, preprocess: what is recorded or asked for; None: to be found out.
        described: whether the file records its architecture.
    """
    record = published(path, state)
    if preprocess is None:
        preprocess = statistics(record or {})
    guesses = [] if described or arch is not None or record else _shape_guesses(state)
    if quick_gelu is None:
        quick_gelu = _activation(state, arch, config, record)
    if quick_gelu is None:
        quick_gelu = formats.is_half(state)
        guesses.insert(0, f"the activation {'QuickGELU' if quick_gelu else 'GELU'}")
        advice = (
            "OpenAI, MetaCLIP and DFN need QuickGELU, most others GELU: pass quick_gelu=True or False (command line: "
            "--quick-gelu, --no-quick-gelu)"
        )
    else:
        advice = "name the architecture if it has others: arch=… (command line: --arch)"
    if guesses:
        warnings.warn(
            f"{path.name} does not say how it was trained; assumed are {', '.join(guesses)}, a picture read at its "
            f"class token, and words read causally up to the end token. {advice[0].upper() + advice[1:]}.",
            stacklevel=4,
        )
    return Facts(quick_gelu, preprocess)


def _activation(state, arch: str | None, config: Mapping | None, record: Mapping | None) -> bool | None:
    """What is known of the activation; None: nothing."""
    stored = formats.activation(state)
    if stored is not None:
        return stored
    if record is not None:
        return bool(record.get("quick_gelu", False))
    if arch is not None:
        twin = f"{arch}-quickgelu" in open_clip.list_models()
        return None if twin and not config.get("quick_gelu") else bool(config.get("quick_gelu", False))
    return None if "visual.conv1.weight" in state else False  # networks of timm have an activation of their own


def _shape_guesses(state: dict[str, Tensor]) -> list[str]:
    """Numbers of heads that neither shapes nor a known architecture tell."""
    if formats.activation(state) is True or not formats.has_text(state) or formats.is_eva(state):
        return []
    family = next((family for family in families() if family.matches(state, {})), None)
    if family is None or family.family not in ("vit", "resnet"):
        return []
    vision, text = family.vision_config(state, {}), text_config(state)
    if known_config(vision, text, state["text_projection"].shape[1]):
        return []
    heads = [] if known_head_width(vision) else ["picture"]
    heads += [] if known_text_heads(text) else ["text"]
    return [f"attention heads of 64 channels on the {' and the '.join(heads)} side"] if heads else []
