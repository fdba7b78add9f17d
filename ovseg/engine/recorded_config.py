"""The config inside a checkpoint, as data: of all that it says, the model and the steps that prepare its pictures.

Both are rebuilt from the tables of ``recorded_tables``.  What is on no table is refused by name, so that a file can
neither run nor open nor fetch anything: no dotted names, no ``init_cfg``, no program in the place of an NMS.
"""

from pathlib import Path
from typing import Any

from mmdet.registry import TRANSFORMS

from ovseg.compat.untrusted import bounded, mapping, plain, shown
from ovseg.compat.untrusted_types import component
from ovseg.printable import say

from .config import read_dump
from .recorded_tables import DETECTORS, SHARED, STEPS

LONGEST = 2_000_000  # characters of a config
READS = ("LoadImageFromFile", "LoadAnnotations", "LoadScenePicture", "LoadSceneBoxes")
"""Steps that read a picture or its labels from a data set; prediction has the picture."""
FOR_TRAINING = ("train_cfg",)


def detector_config(dump: Any, file: str, kind: str, instead: dict) -> tuple[dict, list[dict]]:
    """The model's config and the steps that prepare pictures.

    Args:
        dump: what the checkpoint records as its config.
        file: its name, for messages.
        kind: the model that it has to be, such as ``FViT``.
        instead: settings that the user gave; what the file says of those is not needed.

    Raises:
        ValueError: a checkpoint of something else, or one that says more than the tables of this file list.
    """
    if not isinstance(dump, str) or len(dump) > LONGEST:
        raise ValueError(f"the config in {file} is {shown(dump)}; expected text as MMEngine dumps configs.")
    cfg = bounded(read_dump(dump), f"the config in {file}")
    model = cfg.get("model")
    name = model.get("type") if isinstance(model, dict) else None
    if not isinstance(name, str) or name.removeprefix("ovseg.") != kind:
        known = name if isinstance(name, str) and name in DETECTORS else shown(name)
        raise ValueError(f"{file} is a checkpoint of {known}, not of {kind}.")
    return _model(dict(model), kind, f"model in {file}", instead), _steps(cfg, file)


def _model(model: dict, kind: str, place: str, instead: dict) -> dict:
    del model["type"]
    proposals = model.get("proposals")
    if isinstance(proposals, dict):
        model["proposals"] = {key: value for key, value in proposals.items() if key != "checkpoint"}  # it holds them
    checked = {}
    for name, value in ((name, value) for name, value in model.items() if name not in FOR_TRAINING):
        try:
            if kind in DETECTORS:
                checked |= mapping(DETECTORS[kind])({name: value}, place)
            else:  # a class that the program registered
                checked[name] = SHARED.get(name, plain)(value, f"{place}.{name}")
        except ValueError:
            if name not in instead:
                raise
    return {"type": kind} | checked


def _steps(cfg: dict, file: str) -> list[dict]:
    loader = cfg.get("test_dataloader") or cfg.get("val_dataloader")
    data = loader.get("dataset") if isinstance(loader, dict) else None
    steps = data.get("pipeline") if isinstance(data, dict) else None
    if not isinstance(steps, (list, tuple)) or len(steps) > 32:
        raise ValueError(f"the config in {file} has no steps for pictures (test_dataloader.dataset.pipeline).")
    names = [step.get("type") if isinstance(step, dict) else None for step in steps]
    reads = [isinstance(name, str) and name.rpartition(".")[2] in READS for name in names]
    check = component(TRANSFORMS, STEPS)
    places = [f"pipeline[{index}] in {file}" for index in range(len(steps))]
    return [check(step, place) for step, place, read in zip(steps, places, reads, strict=True) if not read]


def say_tower(source: str | None, file: str):
    """Tell the user which weights on this machine a checkpoint makes the program read."""
    if source is not None and Path(source).expanduser().exists():
        say(f"{file} names its tower: reading {source}", error=True)
