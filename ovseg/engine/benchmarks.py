"""What ``--benchmark NAME`` stands for: dataset, words and published settings.

A config's table ``benchmarks`` maps names to the settings its paper publishes for them; a benchmark without a row runs
with the method's own settings.  A row holds protocol settings and, where a paper tunes more than those, changes to two
components::

    voc21=dict(threshold=0.1, dense=dict(residual=(2.0, 0.3)), scorer=dict(type="FeedbackScore", threshold=0.5))
"""

from mmengine.config import Config

from ovseg.datasets.table import BENCHMARKS
from ovseg.registry import did_you_mean

COMPONENTS = ("dense", "scorer")
LOADERS = [dict(type="mmseg.LoadImageFromFile"), dict(type="mmseg.LoadAnnotations"), dict(type="mmseg.PackSegInputs")]


def _scenes() -> dict:
    from ovseg.datasets.scenes import object_names, stuff_names

    words = [*object_names(), *stuff_names()]
    return {
        f"scenes_{styles}_{candidates}": (
            dict(type="ovseg.ComposedScenes", styles=styles, candidates=candidates, count=300),
            words,
        )
        for styles in ("seen", "unseen")
        for candidates in ("v20", "full")
    }


def benchmarks() -> dict[str, tuple[dict, object]]:
    """Name → (dataset config, vocabulary)."""
    rows = {
        name: (dict(type=f"ovseg.{row.dataset}", pipeline=_pipeline(row.reduce_zero_label)), name)
        for name, row in BENCHMARKS.items()
    }
    rows["camvid_mini"] = dict(type="ovseg.CamVidMini", pipeline=LOADERS), "camvid"
    rows["coco_mini"] = dict(type="ovseg.COCOMini", pipeline=LOADERS), "coco_panoptic"
    return rows | _scenes()


def _pipeline(reduce_zero_label: bool) -> list[dict]:
    load, annotate, pack = LOADERS
    return [load, annotate | dict(reduce_zero_label=reduce_zero_label), pack]


def split_row(row: dict) -> tuple[dict, dict[str, dict]]:
    """(protocol settings, component → changes) of a row of a config's ``benchmarks``."""
    return {k: v for k, v in row.items() if k not in COMPONENTS}, {k: dict(row[k]) for k in COMPONENTS if k in row}


def changed(component: dict | None, change: dict) -> dict:
    """A component's config after a row's change: keys are added, another ``type`` replaces the whole."""
    component = dict(component or {})
    return change if change.get("type", component.get("type")) != component.get("type") else component | change


def set_benchmark(cfg: Config, name: str, work_dir: str) -> Config:
    """Point a freshly read config at a benchmark, in place.

    Raises:
        ValueError: unknown benchmark, with the nearest known one; a row that changes a component which has no type.
    """
    rows = benchmarks()
    if name not in rows:
        raise ValueError(f"unknown benchmark {name!r}. {did_you_mean(name, rows)}There are: {', '.join(rows)}.")
    dataset, vocabulary = rows[name]
    cfg.model.vocabulary = vocabulary
    cfg.model.published, changes = split_row(cfg.get("benchmarks", {}).get(name, {}))
    for key, change in changes.items():
        cfg.model[key] = changed(cfg.model.get(key), change)
        if "type" not in cfg.model[key]:
            raise ValueError(
                f"benchmarks.{name}.{key} changes {', '.join(change)}, but the config's model names no {key}: say "
                f"which one is meant, {key}=dict(type='…', {next(iter(change), '')}=…)."
            )
    cfg.test_dataloader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type="mmengine.DefaultSampler", shuffle=False),
        collate_fn=dict(type="mmengine.pseudo_collate"),
        dataset=dataset,
    )
    cfg.test_evaluator = dict(type="ovseg.OpenVocabIoU", work_dir=work_dir)
    cfg.test_cfg = dict(type="mmengine.TestLoop")
    cfg.model_wrapper_cfg = dict(type="ovseg.FrozenWrapper")
    return cfg
