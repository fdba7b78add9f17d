"""Weights that a config names for MMEngine to load (``init_cfg=dict(type="Pretrained", checkpoint=…)``) are data, too.

MMEngine unpickles a file that PyTorch refuses to read safely, and fetches others by functions that do so from the
start.  Here all of them are read by ``ovseg.compat.checkpoint``, wherever they come from.
"""

import os
from pathlib import Path

import torch
from mmengine.dist import barrier as wait_for_all
from mmengine.dist import get_rank
from mmengine.runner import checkpoint as mmengine_checkpoint

from .checkpoint import UnreadableWeights, read_checkpoint_with_meta

WEB = ("http://", "https://")


def read_as_data():
    """Make MMEngine read every checkpoint as data, from now on and in this process."""
    mmengine_checkpoint._safe_torch_load = _read
    mmengine_checkpoint.load_from_http = load_from_web
    register = mmengine_checkpoint.CheckpointLoader.register_scheme
    register("", load_from_disk, force=True)
    register(WEB, load_from_web, force=True)


def _read(file, map_location=None, weights_only=None) -> dict:
    """``state_dict``, and ``meta`` where the file has it, of a file on this machine."""
    if not isinstance(file, (str, os.PathLike)):
        raise UnreadableWeights("weights are read from files on this machine: copy them here and give their path.")
    state, meta = read_checkpoint_with_meta(os.fspath(file))
    if isinstance(map_location, (str, torch.device)):
        state = {name: tensor.to(map_location) for name, tensor in state.items()}
    return {"state_dict": state} | ({"meta": meta["meta"]} if "meta" in meta else {})


def load_from_disk(filename: str, map_location=None) -> dict:
    return _read(os.fspath(Path(filename).expanduser()), map_location)


def load_from_web(filename: str, map_location=None, model_dir: str | None = None, progress: bool | None = None) -> dict:
    """Download a file, once, to where PyTorch keeps such files, and read it."""
    folder = Path(model_dir or Path(torch.hub.get_dir()) / "checkpoints")
    path = folder / Path(filename.partition("?")[0]).name
    if not path.is_file() and get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(path), progress=bool(progress))
    wait_for_all()
    return _read(path, map_location)
