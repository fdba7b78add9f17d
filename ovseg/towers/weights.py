"""``weights=``: a tag, a hub id, a directory or a file, to a tower.

====================================  ==================================================================================
``tiny``                              the embedded demo model (default); needs no download
``openai``                            an open_clip tag; ViT-B-16 where no architecture is named
``ViT-L-14/openai``                   architecture and tag, as ``open_clip.list_pretrained()`` lists them
``hf-hub:org/name``                   a model of the Hugging Face hub in open_clip's layout
``path/to/folder``                    a folder with ``open_clip_config.json`` and weights, also in parts with an index
``path/to/file.pt`` / ``.safetensors``  a state dict of one of the layouts in ``formats``, half precision too
====================================  ==================================================================================
"""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from ovseg.compat.checkpoint import read_checkpoint_with_meta, state_hash
from ovseg.spelling import nearest

from . import formats
from .architecture import has_own_class
from .base import Preprocess, Tower, TowerCard
from .build import build_clip, build_visual, look_at, make_tower
from .dilation import OUTPUT_STRIDE
from .fetch import HUB_FILES, fetch_record, hub_file
from .folder import SUFFIXES, read_folder
from .identity import identity
from .metadata import check_sizes, folder_config, model_config, own_metadata
from .records import facts_of, published, statistics
from .tokenizer import TokenizerRecord, require_tokenizer, tokenizer_record

TINY = Path(__file__).with_name("tiny_clip.safetensors")
CONFIG = "open_clip_config.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def load_tower(
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    *,
    arch: str | None = None,
    quick_gelu: bool | None = None,
    offline: bool | None = None,
    output_stride: int | None = None,
) -> Tower:
    """The tower of the named weights, in evaluation mode, float32.

    The architecture is looked at before weights are fetched, and refused where it cannot be read.

    Args:
        weights: see the module; None is the embedded demo model.
        device: where to put it.
        arch: an open_clip architecture, for a bare tag (default ``ViT-B-16``) or a file whose shapes do not tell.
        quick_gelu: the activation the weights were trained with; None lets the weights' own record decide.
        offline: never ask the network; None follows the environment variables OVSEG_OFFLINE and HF_HUB_OFFLINE.
        output_stride: pixels between the positions of a convolutional network of timm (8, 16 or 32), whose last
            strides become dilations; None: what the weights record.

    Raises:
        FileNotFoundError: weights that are not on this machine and cannot be fetched.
        ValueError: an unknown name, or weights that are not those of the architecture or of one that cannot be read.
    """
    spec = "tiny" if weights is None else os.fspath(weights)
    path = Path(spec).expanduser()
    options = {"quick_gelu": quick_gelu, "stride": output_stride}
    if spec == "tiny":
        tower = _from_file(TINY, "tiny", None, **options)
    elif path.is_dir():
        tower = _from_folder(path, arch, **options)
    elif path.is_file() or path.suffix in SUFFIXES:
        tower = _from_file(path, spec, arch, **options)
    elif spec.startswith("hf-hub:"):
        tower = _from_hub(spec, offline, **options)
    else:
        tower = _from_tag(spec, arch, offline, **options)
    return tower.to(device)


def _tower(
    state: dict[str, Tensor],
    name: str,
    quick_gelu: bool,
    preprocess: Preprocess,
    config: Mapping | None = None,
    card: Mapping | None = None,
    tokenizer: TokenizerRecord | None = None,
) -> Tower:
    own = has_own_class(config) and not formats.has_authors_names(state)
    clip = build_clip(state, quick_gelu, config)
    known = {"name": name, "hash": state_hash(state), "tokenizer": tokenizer or TokenizerRecord()} | dict(card or {})
    known["config"] = dict(config) | {"quick_gelu": quick_gelu} if own else None
    return make_tower(clip.visual, clip, preprocess, TowerCard(**known))


def _checked(config: Mapping, name: str, stride: int | None) -> dict:
    """An architecture that can be read densely, with the output stride that is asked for.

    Raises:
        ValueError: see ``build.look_at``; an output stride of a network that has none.
    """
    config = dict(config)
    if stride is not None:
        if not config["vision_cfg"].get("timm_model_name"):
            raise ValueError(f"output_stride={stride}: {name} is no convolutional network of timm; leave it out.")
        config["vision_cfg"] = config["vision_cfg"] | {OUTPUT_STRIDE: stride}
    look_at(config, name)
    return config


def _words(config: Mapping, name: str, **where) -> TokenizerRecord:
    """The tokenizer of a config, which can be made here."""
    record = tokenizer_record(config["text_cfg"], **where)
    require_tokenizer(record, name)
    return record


def _from_file(path: Path, name: str, arch: str | None, quick_gelu: bool | None, stride: int | None) -> Tower:
    """A state dict on disk; what it does not record is taken from its shapes."""
    state, meta = read_checkpoint_with_meta(path)
    own = own_metadata(meta["ovseg"], path.name) if "ovseg" in meta else {}
    return _from_state(state, own, path, name, arch, quick_gelu, stride)


def _from_state(state, own: Mapping, path: Path, name: str, arch, quick_gelu, stride) -> Tower:
    state, record = formats.plain(state)
    own = record or own
    if record and not formats.has_text(state):
        return _without_text(state, name)
    config, tokenizer = own.get("config"), None
    if arch is not None:
        config = _architecture(arch)
    check_sizes(config if arch is None else None, state, path.name)
    if config is not None and "text_cfg" in config:
        tokenizer = _words(config, name, folder=path.parent if arch is None else None)
    if has_own_class(config) or stride is not None:
        config = _checked(config or {"vision_cfg": {}}, name, stride)
    preprocess = Preprocess(**own["preprocess"]) if "preprocess" in own else None
    if quick_gelu is None:
        quick_gelu = own.get("quick_gelu")
    facts = facts_of(path, state, arch, config, quick_gelu, preprocess, bool(own))
    return _tower(state, own.get("name", name), facts.quick_gelu, facts.preprocess, config, own.get("card"), tokenizer)


def _without_text(state: dict[str, Tensor], name: str) -> Tower:
    """An image tower with no text tower beside it."""
    tower = build_visual(formats.visual_part(state))
    tower.card = TowerCard(name=name, hash=state_hash(state))
    tower.card = replace(tower.card, identity=identity(tower))
    return tower


def _from_folder(folder: Path, arch: str | None, quick_gelu: bool | None, stride: int | None) -> Tower:
    """A folder in open_clip's layout, or with one model's weights."""
    if (folder / CONFIG).exists() and arch is None:
        return _from_config(folder / CONFIG, lambda: read_folder(folder)[0], str(folder), quick_gelu, stride)
    state, meta, file = read_folder(folder)
    own = own_metadata(meta["ovseg"], file.name) if "ovseg" in meta else {}
    return _from_state(state, own, file, str(folder), arch, quick_gelu, stride)


def _from_config(file: Path, read, name: str, quick_gelu: bool | None, stride: int | None, repository="") -> Tower:
    """Weights beside an ``open_clip_config.json``; ``read`` gives their tensors once the config has passed."""
    model, preprocess = folder_config(file.read_bytes(), file.name)
    model = _checked(model, name, stride)
    tokenizer = _words(model, name, folder=file.parent, repository=repository)
    state = read()
    check_sizes(model, state, file.name)
    record = published(file) or {}
    if quick_gelu is None:
        quick_gelu = model.get("quick_gelu", bool(record.get("quick_gelu", False)))
    use = Preprocess(**preprocess) if preprocess else statistics(record)
    return _tower(state, name, quick_gelu, use, model, tokenizer=tokenizer)


def _architecture(arch: str) -> dict:
    config = open_clip.get_model_config(arch)
    if config is None:
        near = nearest(arch, open_clip.list_models(), cutoff=0.4)
        raise ValueError(f"unknown architecture {arch!r}. Did you mean {' or '.join(near) or 'ViT-B-16'}?")
    return model_config(config, f"open_clip's {arch}")


def _from_tag(spec: str, arch: str | None, offline: bool | None, quick_gelu: bool | None, stride: int | None) -> Tower:
    """Weights of open_clip's own list; the tag's record decides the activation and the normalization."""
    name, _, tag = spec.rpartition("/")
    name = arch or name or "ViT-B-16"
    record = open_clip.get_pretrained_cfg(name, tag)
    if not record:
        _unknown_tag(spec, name, tag)
    name = f"{name}/{tag}"
    model = _checked(_architecture(name.rpartition("/")[0]), name, stride)
    tokenizer = _words(model, name)
    state, _ = read_checkpoint_with_meta(fetch_record(record, name, offline))
    gelu = bool(record.get("quick_gelu", model.get("quick_gelu", False))) if quick_gelu is None else quick_gelu
    return _tower(state, name, gelu, statistics(record), model, tokenizer=tokenizer)


def _unknown_tag(spec: str, name: str, tag: str):
    listed = [f"{model}/{t}" for model, t in open_clip.list_pretrained()]
    tags = open_clip.list_pretrained_tags_by_model(name)
    near = nearest(spec if "/" in spec else f"{name}/{tag}", listed, count=4, cutoff=0.3)
    known = f"{name} has the tags {', '.join(tags)}. " if tags else ""
    hub = f"For the repository of that name on the hub type hf-hub:{spec}. " if _may_be_hub(spec, name) else ""
    raise ValueError(
        f"unknown weights {spec!r}: it is not a file or folder here, nor a tag of open_clip. {hub}{known}Did you mean "
        f"{' or '.join(near)}? ('tiny' is the embedded demo model; 'hf-hub:org/name' asks the hub.)"
    )


def _may_be_hub(spec: str, name: str) -> bool:
    return HUB_ID.fullmatch(spec) is not None and open_clip.get_model_config(name) is None


def _from_hub(spec: str, offline: bool | None, quick_gelu: bool | None, stride: int | None) -> Tower:
    repo = spec.removeprefix("hf-hub:").strip("/")
    config = hub_file(repo, CONFIG, spec, offline)

    def read() -> dict[str, Tensor]:
        for file in HUB_FILES[:-1]:
            try:
                return read_checkpoint_with_meta(hub_file(repo, file, spec, offline))[0]
            except FileNotFoundError:
                continue
        return read_checkpoint_with_meta(hub_file(repo, HUB_FILES[-1], spec, offline))[0]

    return _from_config(config, read, spec, quick_gelu, stride, repository=repo)
