"""``weights=``: a tag, a hub id, a directory or a file, to a tower.

====================================  ==================================================================================
``tiny``                              the embedded demo model (default); needs no download
``openai``                            an open_clip tag; ViT-B-16 where no architecture is named
``ViT-L-14/openai``                   architecture and tag, as ``open_clip.list_pretrained()`` lists them
``hf-hub:org/name``                   a model of the Hugging Face hub in open_clip's layout
``path/to/folder``                    a folder with ``open_clip_config.json`` and weights
``path/to/file.pt`` / ``.safetensors``  a state dict of one of the layouts in ``formats``, half precision too
====================================  ==================================================================================
"""

import logging
import os
import warnings
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from torch import Tensor

from ovseg.compat.checkpoint import read_checkpoint_with_meta, state_hash
from ovseg.spelling import nearest

from . import formats
from .base import Preprocess, Tower, TowerCard
from .build import build_clip, build_visual, make_tower
from .identity import identity
from .metadata import check_sizes, folder_config, own_metadata

TINY = Path(__file__).with_name("tiny_clip.safetensors")
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")


def load_tower(
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    *,
    arch: str | None = None,
    quick_gelu: bool | None = None,
    offline: bool | None = None,
) -> Tower:
    """The tower of the named weights, in evaluation mode, float32.

    Args:
        weights: see the module; None is the embedded demo model.
        device: where to put it.
        arch: an open_clip architecture, for a bare tag (default ``ViT-B-16``) or a file whose shapes do not tell.
        quick_gelu: the activation the weights were trained with; None lets the weights' own record decide.
        offline: never ask the network; None follows the environment variables OVSEG_OFFLINE and HF_HUB_OFFLINE.

    Raises:
        FileNotFoundError: weights that are not on this machine and cannot be fetched.
        ValueError: an unknown name, or weights that are not those of the architecture.
    """
    spec = "tiny" if weights is None else os.fspath(weights)
    path = Path(spec).expanduser()
    if spec == "tiny":
        tower = _from_file(TINY, "tiny", None, quick_gelu)
    elif path.is_dir():
        tower = _from_folder(path, quick_gelu)
    elif path.is_file() or path.suffix in SUFFIXES:
        tower = _from_file(path, spec, arch, quick_gelu)
    elif spec.startswith("hf-hub:"):
        tower = _from_hub(spec, quick_gelu, offline)
    else:
        tower = _from_tag(spec, arch, quick_gelu, offline)
    return tower.to(device)


def _tower(
    state: dict[str, Tensor], name: str, quick_gelu: bool, preprocess: Preprocess, config=None, card=None
) -> Tower:
    clip = build_clip(state, quick_gelu, config)
    card = TowerCard(name=name, hash=state_hash(state), **(card or {}))
    return make_tower(clip.visual, clip, preprocess, card)


def _from_file(path: Path, name: str, arch: str | None, quick_gelu: bool | None) -> Tower:
    """A state dict on disk; what it does not record is taken from its shapes."""
    state, meta = read_checkpoint_with_meta(path)
    own = own_metadata(meta["ovseg"], path.name) if "ovseg" in meta else {}
    state, record = formats.plain(state)
    own = record or own
    if record and not formats.has_text(state):
        return _without_text(state, name)
    config = own.get("config")
    check_sizes(config, state, path.name)
    if arch is not None:
        config = _architecture(arch)
    if quick_gelu is None:
        quick_gelu = own["quick_gelu"] if "quick_gelu" in own else _recorded_activation(path, state, arch)
    preprocess = Preprocess(**own.get("preprocess", {}))
    return _tower(state, own.get("name", name), quick_gelu, preprocess, config, own.get("card"))


def _without_text(state: dict[str, Tensor], name: str) -> Tower:
    """An image tower with no text tower beside it."""
    tower = build_visual(formats.visual_part(state))
    tower.card = TowerCard(name=name, hash=state_hash(state))
    tower.card = replace(tower.card, identity=identity(tower))
    return tower


def _recorded_activation(path: Path, state: dict[str, Tensor], arch: str | None) -> bool:
    """Whether a plain file's weights want QuickGELU, by what is known of them."""
    known = formats.activation(state)
    if known is not None:
        return known
    records = [open_clip.get_pretrained_cfg(model, tag) for model, tag in open_clip.list_pretrained()]
    # on the hub the repository is named after the weights; the files in it are called alike everywhere
    published = {cfg["hf_hub"].split("/")[1]: cfg for cfg in records if cfg.get("hf_hub")}
    published |= {Path(cfg["url"]).name: cfg for cfg in records if cfg.get("url")}
    names = [path.name, path.stem, path.parent.name, *(p.name.split("--")[-1] for p in path.parents if "--" in p.name)]
    for name in names:
        if name and name in published:
            return bool(published[name].get("quick_gelu", False))
    if arch is not None:
        return "quickgelu" in arch
    half = formats.is_half(state)
    warnings.warn(
        f"{path.name} does not say which activation it was trained with; {'QuickGELU' if half else 'GELU'} is assumed. "
        "OpenAI, MetaCLIP and DFN need QuickGELU, most others GELU: pass quick_gelu=True or False (command line: "
        "--quick-gelu, --no-quick-gelu).",
        stacklevel=2,
    )
    return half


def _from_folder(folder: Path, quick_gelu: bool | None, name: str | None = None) -> Tower:
    """A folder in open_clip's layout."""
    config_file = folder / "open_clip_config.json"
    files = [p for n in (*HUB_FILES, "open_clip_pytorch_model.safetensors") if (p := folder / n).exists()]
    files += sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p not in files)
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no weights: expected open_clip_config.json and a file such as {HUB_FILES[0]}; found "
            f"{', '.join(sorted(p.name for p in folder.iterdir())[:5]) or 'nothing'}."
        )
    if not config_file.exists():
        return _from_file(files[0], name or str(folder), None, quick_gelu)
    return _from_config(config_file, files[0], name or str(folder), quick_gelu)


def _from_config(config_file: Path, file: Path, name: str, quick_gelu: bool | None) -> Tower:
    model, preprocess = folder_config(config_file.read_bytes(), config_file.name)
    state, _ = read_checkpoint_with_meta(file)
    check_sizes(model, state, config_file.name)
    gelu = model.get("quick_gelu", False) if quick_gelu is None else quick_gelu
    return _tower(state, name, gelu, Preprocess(**preprocess), model)


def _architecture(arch: str) -> dict:
    config = open_clip.get_model_config(arch)
    if config is None:
        near = nearest(arch, open_clip.list_models(), cutoff=0.4)
        raise ValueError(f"unknown architecture {arch!r}. Did you mean {' or '.join(near) or 'ViT-B-16'}?")
    return config


def _from_tag(spec: str, arch: str | None, quick_gelu: bool | None, offline: bool | None) -> Tower:
    """Weights of open_clip's own list; the tag's record decides the activation and the normalization."""
    name, _, tag = spec.rpartition("/")
    name = arch or name or "ViT-B-16"
    record = open_clip.get_pretrained_cfg(name, tag)
    if not record:
        _unknown_tag(spec, name, tag)
    model = _architecture(name)
    file = _fetch(record, f"{name}/{tag}", offline)
    state, _ = read_checkpoint_with_meta(file)
    gelu = bool(record.get("quick_gelu", model.get("quick_gelu", False))) if quick_gelu is None else quick_gelu
    preprocess = Preprocess(record["mean"], record["std"], record.get("interpolation", "bicubic"))
    return _tower(state, f"{name}/{tag}", gelu, preprocess, model)


def _unknown_tag(spec: str, name: str, tag: str):
    listed = [f"{model}/{t}" for model, t in open_clip.list_pretrained()]
    tags = open_clip.list_pretrained_tags_by_model(name)
    near = nearest(spec if "/" in spec else f"{name}/{tag}", listed, count=4, cutoff=0.3)
    known = f"{name} has the tags {', '.join(tags)}. " if tags else ""
    raise ValueError(
        f"unknown weights {spec!r}: it is not a file or folder here, nor a tag of open_clip. {known}Did you mean "
        f"{' or '.join(near)}? ('tiny' is the embedded demo model; 'hf-hub:org/name' asks the hub.)"
    )


def _from_hub(spec: str, quick_gelu: bool | None, offline: bool | None) -> Tower:
    repo = spec.removeprefix("hf-hub:").strip("/")
    config = _hub_file(repo, "open_clip_config.json", spec, offline)
    for file in HUB_FILES[:-1]:
        try:
            return _from_config(config, _hub_file(repo, file, spec, offline), spec, quick_gelu)
        except FileNotFoundError:
            continue
    return _from_config(config, _hub_file(repo, HUB_FILES[-1], spec, offline), spec, quick_gelu)


def _fetch(record: dict, name: str, offline: bool | None) -> Path:
    """The file of one open_clip record, from the caches (OpenAI's own and the hub's) or the network."""
    cached = Path("~/.cache/clip").expanduser() / Path(record.get("url") or "none").name
    if cached.is_file():
        return cached
    if record.get("hf_hub"):
        repo, _, file = record["hf_hub"].rpartition("/")
        files = (file,) if file else HUB_FILES
        for candidate in files[:-1]:
            try:
                return _hub_file(repo, candidate, name, offline)
            except FileNotFoundError:
                continue
        return _hub_file(repo, files[-1], name, offline)
    if not _is_offline(offline):
        try:
            return Path(open_clip.download_pretrained(record, prefer_hf_hub=False))
        except Exception as error:
            logging.getLogger("ovseg").debug("download failed: %s", error)
    raise FileNotFoundError(
        f"the weights {name} are not on this machine: {cached.name} was looked for in {cached.parent} and could not be "
        f"fetched. On a connected machine fetch {record['url']}, copy the file here and pass --weights {cached.name}. "
        "'--weights tiny' works offline at once."
    )


def _is_offline(offline: bool | None) -> bool:
    if offline is not None:
        return offline
    return any(
        os.environ.get(name, "0").lower() in ("1", "true", "yes", "on") for name in ("OVSEG_OFFLINE", "HF_HUB_OFFLINE")
    )


def _hub_file(repo: str, file: str, name: str, offline: bool | None) -> Path:
    """One file of a hub repository, from the cache or the network."""
    cached = try_to_load_from_cache(repo, file)
    if isinstance(cached, str):
        return Path(cached)
    reason = "offline mode is on"
    if not _is_offline(offline):
        try:
            return Path(hf_hub_download(repo, file))
        except Exception as error:  # the hub's client has a dozen exception types for "it could not be had"
            reason = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
    from huggingface_hub.constants import HF_HUB_CACHE

    raise FileNotFoundError(
        f"the weights {name} are not on this machine: {file} of {repo} was looked for in {HF_HUB_CACHE} and could not "
        f"be fetched ({reason}). On a connected machine type `hf download {repo} {file}`, copy that file here and pass "
        f"--weights path/to/{file}. '--weights tiny' works offline at once."
    )
