"""What a training run leaves behind: weights as safetensors, and beside them what resuming needs.

    iter_500.safetensors         parameters and buffers but for those of frozen named towers; metadata holds all else
    iter_500.state               optimizer, schedulers, moving averages, random states; plain data for ``weights_only``

Both are written atomically, the weights last, so that a checkpoint whose weights are there is complete.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ovseg import __version__
from ovseg.compat.checkpoint import (
    atomic_write,
    read_checkpoint_with_meta,
    read_pickled,
    save_safetensors,
    state_hash,
)
from ovseg.compat.untrusted import listed, mapping, mapping_of, number, optional, parse_json, refuse, text, whole
from ovseg.results.provenance import tower_weights
from ovseg.towers import Tower

FORMAT = "ovseg-trained"


def named_towers(model: nn.Module) -> dict[str, Tower]:
    """Towers of named weights inside a model, or whose tensors a part of it has (``CLIPBackbone.tower``), by the place
    of the tower or of that part; each once."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, Tower) and module.card.hash}
    found = {name: tower for name, tower in found.items() if not any(name.startswith(f"{other}.") for other in found)}
    own = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    for name, module in model.named_modules():
        tower = getattr(module, "tower", None)
        if isinstance(tower, Tower) and tower.card.hash and all(tower is not other for other in found.values()):
            if any(id(parameter) in own for parameter in tower.parameters()):
                found[name] = tower
    return found


def frozen_names(model: nn.Module) -> set[str]:
    """Names in the state dict that need no storing: what does not train in named towers.

    Buffers of a tower are stored as soon as any of its parameters trains.
    """
    frozen = set()
    for tower in named_towers(model).values():
        trained = {id(p) for p in tower.parameters() if p.requires_grad}
        for tensor in tower.state_dict(keep_vars=True).values():
            parameter = isinstance(tensor, nn.Parameter)
            if (parameter and id(tensor) not in trained) or (not parameter and not trained):
                frozen.add(id(tensor))
    return {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in frozen}


def stored_names(model: nn.Module) -> list[str]:
    """Names of the tensors that a checkpoint holds, those that share memory once."""
    frozen, seen, names = frozen_names(model), set(), []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name not in frozen and id(tensor) not in seen:
            seen.add(id(tensor))
            names.append(name)
    return names


def save_weights(path: Path, model: nn.Module, state: dict[str, Tensor], notes: dict):
    """Write the part of a state dict that a checkpoint holds."""
    towers = {place: str(tower_weights(tower.card)) for place, tower in named_towers(model).items()}
    notes = dict(format=FORMAT, ovseg=__version__, towers=towers) | notes
    save_safetensors(path, {name: state[name] for name in stored_names(model)}, notes)


def load_weights(path: str | Path, model: nn.Module) -> dict:
    """Load a checkpoint into a model; its notes.

    Checkpoints of ovseg must fit exactly.  Of other files (a pretrained backbone, for example) what fits by name and
    shape is taken, and the notes list what was left (``missing``, ``unexpected``).  ``hash`` names the tensors.

    Raises:
        FileNotFoundError, ValueError: no weights, or weights of another model, with what does not fit.
    """
    state, notes = read_checkpoint_with_meta(path)
    missing, unexpected = check_fit(path, model, state, notes)
    own = model.state_dict()
    model.load_state_dict({name: value for name, value in state.items() if name in own}, strict=False)
    return notes | {"missing": missing, "unexpected": unexpected, "hash": state_hash(state)}


def check_fit(path: str | Path, model: nn.Module, state: dict[str, Tensor], notes: dict) -> tuple[list[str], list[str]]:
    """Names that a checkpoint lacks, and that the model does not have; see ``load_weights``.

    The model may stand on the device ``meta``, which takes no memory.
    """
    own = model.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        raise ValueError(
            f"{path} does not fit this model: {', '.join(wrong[:3])}{' and more' if len(wrong) > 3 else ''}. Another "
            "number of classes, another size of the tower or other settings of the head? Use the config it was trained "
            "with."
        )
    missing = [name for name in stored_names(model) if name not in state]
    unexpected = [name for name in state if name not in own]
    if notes.get("format") == FORMAT:
        towers = mapping_of(text())(parse_json(notes.get("towers"), f"towers in {path}"), f"towers in {path}")
        _check_towers(path, model, towers)
        if missing or unexpected:
            raise ValueError(
                f"{path} does not fit this model: missing {', '.join(missing[:3]) or 'nothing'}, unexpected "
                f"{', '.join(unexpected[:3]) or 'nothing'}. Use the config and the tuning presets it was trained with."
            )
    elif len(unexpected) == len(state):
        raise ValueError(
            f"{path} holds nothing of this model: it names {', '.join(list(state)[:3])}, …, the model "
            f"{', '.join(list(own)[:3])}, …. Give a checkpoint of this model, or convert it first."
        )
    return missing, unexpected


def _check_towers(path, model, stored: dict[str, str]):
    present = {place: str(tower_weights(tower.card)) for place, tower in named_towers(model).items()}
    hashes = [{place: name.rpartition("(")[2] for place, name in each.items()} for each in (stored, present)]
    if hashes[0] != hashes[1]:
        raise ValueError(
            f"{path} was trained on {', '.join(stored.values()) or 'no tower'}, this model stands on "
            f"{', '.join(present.values()) or 'none'}. Frozen parameters are not stored: give the weights it was "
            "trained on."
        )


def state_path(weights: str | Path) -> Path:
    return Path(weights).with_suffix(".state")


def save_state(path: Path, content: dict):
    with atomic_write(path) as part:
        torch.save(content, part)


def load_state(weights: str | Path) -> dict:
    """What resuming needs beside the weights.

    Raises:
        ValueError: there is none.
    """
    path = state_path(weights)
    if not path.is_file():
        raise ValueError(
            f"{weights} cannot be resumed from: there is no {path.name} beside it. Start from its weights instead "
            "(load_from), or give a checkpoint of a run."
        )
    state = mapping(STATE)(read_pickled(path), path.name)
    if absent := [name for name in STATE if name not in state]:
        raise ValueError(f"{path} is no state of a run: it lacks {', '.join(absent)}.")
    return state


def _anything(value, place: str):
    """Left to the optimizer and the schedulers, which take plain values under the keys that they know."""
    return value


def _best(value, place: str) -> str | None:
    """The name of the best checkpoint; the folder is that of the run."""
    name = "" if value is None else text(1000)(value, place).replace("\\", "/").rpartition("/")[2]
    if value is not None and (not name.startswith("best_") or Path(name).suffix not in (".safetensors", ".pth")):
        refuse(place, "the name of a checkpoint that begins with best_", value)
    return name or None


def _info(value, place: str) -> dict:
    """What ``CheckpointHook`` remembers.  It removes files by these names, so that none may lead out of its folder."""
    checks = {"best_ckpt": _best, "best_score": optional(number(-1e12, 1e12)), "keep_ckpt_ids": listed(whole(0, 2**40))}
    known = {}
    for key, each in mapping_of(_anything)(value, place).items():
        check = next((check for name, check in checks.items() if key.startswith(name)), None)
        if check is None:
            refuse(f"a key of {place}", " or ".join(checks), key)
        each = float(each) if isinstance(each, Tensor) and each.numel() == 1 else each
        checked = check(each, f"{place}.{key}")
        known[key] = list(checked) if isinstance(checked, tuple) else checked
    return known


STATE = dict(
    iterations=whole(0, 2**40),
    epochs=whole(0, 2**40),
    world_size=whole(1, 2**20),
    optimizer=mapping_of(_anything),
    param_schedulers=listed(mapping_of(_anything)),
    averages=mapping_of(_anything, 10**6),
    random=mapping(dict(python=_anything, numpy=_anything, torch=_anything, cuda=_anything)),
    info=_info,
)


def latest(folder: str | Path) -> Path | None:
    """The complete checkpoint of a folder with the most iterations."""
    found = [path for path in Path(folder).glob("iter_*.safetensors") if state_path(path).is_file()]
    return max(found, key=lambda path: int(path.stem.partition("_")[2]), default=None)


def forget_orphans(folder: str | Path):
    """Remove states whose weights are gone."""
    for path in Path(folder).glob("*.state"):
        if not path.with_suffix(".safetensors").exists():
            path.unlink()


def trained(model: nn.Module) -> Iterator[tuple[str, int, int]]:
    """(part, numbers that train, all numbers) of each part of a model that has parameters; towers are parts."""
    towers = tuple(named_towers(model))
    totals: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        part = next((place for place in towers if name.startswith(f"{place}.")), name.split(".")[0])
        count = totals.setdefault(part, [0, 0])
        count[0] += parameter.numel() * parameter.requires_grad
        count[1] += parameter.numel()
    yield from ((part, *counts) for part, counts in totals.items())
