"""Configs that measure several models on one benchmark at once."""

import copy

from mmengine.config import Config


def groups(cfgs: dict[str, Config]) -> list[dict[str, Config]]:
    """Groups of configs that can run together: ``OpenVocabSegmentor`` models with the same dataset and metric."""
    grouped: dict[str, dict[str, Config]] = {}
    for name, cfg in cfgs.items():
        shared = cfg.model.type.removeprefix("ovseg.") == "OpenVocabSegmentor"
        evaluator = {key: value for key, value in cfg.test_evaluator.items() if key != "work_dir"}
        key = str((cfg.test_dataloader.to_dict(), evaluator)) if shared else name
        grouped.setdefault(key, {})[name] = cfg
    return list(grouped.values())


def together(cfgs: dict[str, Config]) -> Config:
    """One config that measures all of a group side by side; the config itself where there is only one.

    Everything except the models and their metrics is taken from the first.
    """
    first = next(iter(cfgs.values()))
    if len(cfgs) == 1:
        return first
    cfg = copy.deepcopy(first)
    cfg.model = dict(type="ovseg.SideBySide", models={name: each.model for name, each in cfgs.items()})
    metrics = {name: each.test_evaluator for name, each in cfgs.items()}
    cfg.test_evaluator = dict(type="ovseg.SideBySideEvaluator", metrics=metrics)
    return cfg
