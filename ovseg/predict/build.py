"""The one place where a model is put together: from a method, weights and settings to what predicts.

``assemble``         tower + extractor + scorer + refiners under one protocol, a ``Pipeline``
``build``            the engine on it, ``Segmenter`` or ``DenseDetector``, or that of a trained model's checkpoint
``choose_tower``     the tower alone, as the phrase search needs it

Trained models are reached through the registry by their names; nothing of MMSegmentation or MMDetection is imported
unless one is asked for.  Every option is used or refused by name.
"""

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ovseg.compat.notice import say_once
from ovseg.phrases import PhraseSearch
from ovseg.registry import DENSE, LOADERS, MODELS, REFINERS, SCORERS, component_name, find_named, named, names
from ovseg.results.provenance import Provenance, tower_weights
from ovseg.spelling import nearest
from ovseg.towers import Tower, load_tower

from .box_settings import BoxSettings
from .detect import DenseDetector
from .pipeline import Pipeline
from .protocol import Protocol, digest
from .segment import Segmenter
from .slices import SlicedDetector, SliceSettings

BOX_SETTINGS = tuple(each.name for each in fields(BoxSettings))


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """``auto`` → CUDA (under torchrun the process's own GPU), else Apple's MPS, else the CPU.

    Raises:
        ValueError: a device this machine does not have.
    """
    if str(device) != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device {str(device)!r} is not available here ({str(error).splitlines()[0]}). Use auto or cpu."
            ) from None
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


# --- names -----------------------------------------------------------------------------------------------------------


def trained_model(method: Any) -> type | None:
    """The model of a name that ``ovseg.load`` runs from a checkpoint, if the name is that of no extractor."""
    if not isinstance(method, str) or find_named(DENSE, method) is not None:
        return None
    model = find_named(MODELS, method)
    return model if getattr(model, "loader", None) else None


def registered(name: str, registry, what: str) -> str:
    """The class name, as configs write it, of a name in any spelling.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    component = find_named(registry, name)
    if component is None:
        near = nearest(name, known := list(named(registry)), 3, 0.4)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown {what} {name!r}. {hint}There are: {', '.join(known)}.")
    return registered_as(component, registry)


def registered_as(component: type, registry) -> str:
    """The class name of a component, as configs and checkpoints write it."""
    return next(kind for kind in names(registry) if registry.module_dict[kind] is component)


def dense_config(method: str | Mapping) -> dict[str, Any]:
    """``dict(type=…)`` of a method's extractor from its name, or a config given as such.

    Raises:
        ValueError: neither, or an unknown name.
    """
    if isinstance(method, Mapping) and "type" in method:
        return dict(method)
    if not isinstance(method, str):
        raise ValueError(
            f"a method is a name such as 'naclip' or a config such as dict(type='NACLIP'), got {method!r}."
        )
    return {"type": registered(method, DENSE, "method")}


def refiner_configs(refine) -> tuple:
    """Configs of refiners from names in any spelling, or configs."""
    refine = (refine,) if isinstance(refine, (str, Mapping)) else tuple(refine or ())
    return tuple(r if isinstance(r, Mapping) else registered(r, REFINERS, "refiner") for r in refine)


def scorer_config(scorer: str | Mapping | None) -> dict[str, Any] | None:
    """Config of a scorer from its name in any spelling, or a config whose ``type`` may be such a name."""
    if scorer is None:
        return None
    config = {"type": scorer} if isinstance(scorer, str) else dict(scorer)
    kind = config.get("type")
    by_name = isinstance(kind, str) and "." not in kind
    return config | {"type": registered(kind, SCORERS, "scorer")} if by_name else config


def method_config(method: str | Mapping, weights: str | Path | None = None) -> dict[str, Any]:
    """``dense_config`` with what the method reads from the file of its weights, where ``weights`` are a file."""
    config = dense_config(method)
    if isinstance(weights, (str, Path)) and Path(weights).is_file():
        config = {option: str(weights) for option in DENSE.get(config["type"]).in_weights} | config
    return config


# --- assembly --------------------------------------------------------------------------------------------------------


def assemble(
    method: str | Mapping,
    weights: str | Path | Tower | None = None,
    *,
    published: Mapping | None = None,
    settings: Mapping | None = None,
    scorer: Mapping | None = None,
    arch: str | None = None,
    quick_gelu: bool | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tower: Tower | None = None,
    compile: bool = False,
    suit_weights: bool = True,
    options_in_weights: bool = True,
) -> Pipeline:
    """Tower + extractor + scorer + refiners under one protocol.

    The protocol's settings come from the method's paper, ``published``, the weights' card and ``settings``, the later
    one winning.

    Args:
        method: name in any spelling, or config of the extractor.
        weights: see ``ovseg.towers.weights``, or a tower; None is the embedded demo model.
        published: settings of one benchmark as published.
        settings: settings that override all others.
        scorer: name or config of the scorer, the method's own unless given.
        arch, quick_gelu: for weight files that do not say.
        device: see ``pick_device``; None: the CPU, or where the tower is.
        dtype: precision of tower and extractor, a ``precision`` of ``Protocol`` or that type of torch; the protocol's
            unless given.
        tower: a tower instead of ``weights``; with it ``weights`` may only be a file that the method reads itself.
        compile: compile tower and extractor with ``torch.compile``.
        suit_weights: whether the settings of the weights' card apply.
        options_in_weights: whether the method reads what it needs from the file of the weights, where they are one.

    Raises:
        ValueError: unknown names, settings or weights, options that contradict each other.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """
    if isinstance(weights, Tower):
        weights, tower = None, weights
    config = method_config(method, weights if options_in_weights else None)
    own = DENSE.get(config["type"])
    layer = dict(settings or {})
    if "refine" in layer:
        layer["refine"] = refiner_configs(layer["refine"])
    if dtype is not None:
        layer["precision"] = _precision(dtype, layer.get("precision"))
    beside = tower is not None and own.in_weights  # then the weights are the file of the method's own parts
    tower = choose_tower(None if beside else weights, tower, arch, quick_gelu, device)
    layers = own.protocol, published or {}, tower.card.protocol if suit_weights else {}, layer
    pipeline = Pipeline(tower, config, make_protocol(*layers), scorer_config(scorer))
    return pipeline.compile() if compile else pipeline


def make_protocol(*layers: Mapping) -> Protocol:
    """One protocol from settings in order of precedence, the last one wins.

    Raises:
        ValueError: an unknown setting or one out of its range.
    """
    return Protocol.from_dict({name: value for layer in layers for name, value in layer.items()})


def choose_tower(
    weights: str | Path | Tower | None = None,
    tower: Tower | None = None,
    arch: str | None = None,
    quick_gelu: bool | None = None,
    device: str | torch.device | None = None,
) -> Tower:
    """A tower that is given, or that of the weights; arguments as of ``assemble``.

    Raises:
        ValueError: options of weights beside a tower, unknown weights or device.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """
    tower, weights = (weights, None) if isinstance(weights, Tower) else (tower, weights)
    if tower is None:
        return load_tower(weights, pick_device(device or "cpu"), arch=arch, quick_gelu=quick_gelu)
    refused = dict(weights=weights, arch=arch, quick_gelu=quick_gelu)
    refused = [name for name, value in refused.items() if value is not None]
    if refused:
        raise ValueError(f"{', '.join(refused)}: for weights that are loaded here; a loaded tower (tower=) is given.")
    return tower if device is None or str(device) == "auto" else tower.to(pick_device(device))


def _precision(dtype: str | torch.dtype, setting: str | None) -> str:
    name = str(dtype).removeprefix("torch.")
    if setting not in (None, name):
        raise ValueError(f"dtype={name!r} and precision={setting!r} contradict each other: leave one of them out.")
    return name


# --- engines ---------------------------------------------------------------------------------------------------------


def build(
    method: str | Mapping,
    weights: str | Path | None = None,
    *,
    boxes: bool = False,
    device: str | torch.device = "auto",
    tower: Tower | None = None,
    cache: bool = True,
    settings: Mapping | None = None,
    **options: Any,
) -> Any:
    """The engine of a method: ``read`` words, ``encode`` a picture, ``decode`` both, ``provenance``.

    Args:
        method: name in any spelling, or config of an extractor; the name of a trained detector asks for its checkpoint
            as ``weights``.
        weights, tower: see ``assemble``.
        boxes: detections instead of label maps.
        device: see ``pick_device``.
        cache: keep text embeddings on disk.
        settings: of the protocol; with ``boxes`` also of ``BoxSettings`` and ``SliceSettings``; of a trained detector
            changes to its config, and ``SliceSettings``.
        **options: see ``assemble``.

    Raises:
        ValueError, FileNotFoundError: see ``assemble``; options that a trained detector has no use for.
    """
    slices, settings = SliceSettings.split(settings or {})
    model = trained_model(method)
    if slices is not None and not boxes and model is None:
        raise ValueError("slice, overlap: of detectors. Label maps are made window by window: give window and stride.")
    if model is not None:
        engine = _trained(model, weights, pick_device(device), tower, settings, options | dict(cache=cache))
        return engine if slices is None else SlicedDetector(engine, slices)
    parts = dict(device=device, tower=tower, **options)
    if boxes:
        chosen, settings = split_settings(settings)
        published = {"refine": ()} | dict(parts.pop("published", None) or {})
        pipeline = assemble(method, weights, published=published, settings=settings, **parts)
        engine = DenseDetector(pipeline, chosen, cache)
        engine = engine if slices is None else SlicedDetector(engine, slices)
    else:
        engine = Segmenter(pipeline := assemble(method, weights, settings=settings, **parts), cache)
    say_once(pipeline.tower.card.notice)
    return engine


def split_settings(settings: Mapping) -> tuple[BoxSettings, dict[str, Any]]:
    """The part that says how regions become detections, and the protocol's.

    Raises:
        ValueError: refiners, which regions have no use for, or box settings out of range.
    """
    if settings.get("refine"):
        raise ValueError("refiners work on label maps; detections have none: leave out refine.")
    boxes = {name: value for name, value in settings.items() if name in BOX_SETTINGS}
    return BoxSettings(**boxes), {name: value for name, value in settings.items() if name not in BOX_SETTINGS}


def _trained(model: type, weights, device: torch.device, tower: Tower | None, settings: dict, options: Mapping):
    """The engine of a checkpoint."""
    name, loader = component_name(model), LOADERS.get(model.loader)
    usual = dict(cache=(True,), compile=(False,), dtype=(None, "float32", torch.float32))
    refused = [option for option, value in options.items() if value not in usual.get(option, (None,))]
    refused += [each for each in settings if each in BOX_SETTINGS and each not in loader.box_settings]
    if refused:
        raise ValueError(
            f"{', '.join(refused)}: for methods without training alone. {name} is what its checkpoint says; it takes "
            f"device, tower, {', '.join(loader.box_settings)} and changes to the model of its config."
        )
    if weights is None:
        raise ValueError(
            f"{name} is trained: weights= (--weights) names its checkpoint, such as one of ovseg train or "
            "configs/fvit/fvit_windows_tiny_scenes.safetensors."
        )
    boxes = BoxSettings(**{each: settings.pop(each) for each in loader.box_settings if each in settings})
    return loader(weights, registered_as(model, MODELS), device, boxes, tower, **settings)


# --- phrases ---------------------------------------------------------------------------------------------------------


def search_provenance(search: PhraseSearch, vocabulary_hash: str | None = None) -> Provenance:
    """What its places are made with."""
    settings = search.settings
    fingerprint = digest({"method": "adapting-clip"} | settings)  # so it was written before names had underscores
    weights = tower_weights(search.tower.card)
    return Provenance("adapting_clip", {}, None, weights, vocabulary_hash, settings, fingerprint)
