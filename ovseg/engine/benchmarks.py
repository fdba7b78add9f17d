"""What ``--benchmark NAME`` stands for: dataset, words, metric and published settings.

A config's table ``benchmarks`` maps names to the settings its paper publishes for them; a benchmark without a row runs
with the method's own settings.  A row holds protocol settings and, where a paper tunes more than those, changes to two
components::

    voc21=dict(threshold=0.1, dense=dict(residual=(2.0, 0.3)), scorer=dict(type="FeedbackScore", threshold=0.5))
"""

from typing import NamedTuple

from mmengine.config import Config

from ovseg.datasets.table import BENCHMARKS
from ovseg.registry import SCOPE, did_you_mean, find_component

COMPONENTS = ("dense", "scorer")
BOX_LOADERS = {  # of the image and of the truth, which detectors read after they resized the image
    "ovseg.SceneBoxes": (dict(type="ovseg.LoadScenePicture"), dict(type="ovseg.LoadSceneBoxes")),
    "ovseg.COCOMiniBoxes": (
        dict(type="mmcv.LoadImageFromFile"),
        dict(type="mmdet.LoadAnnotations", with_bbox=True, with_mask=True),
    ),
}
LOADERS = [dict(type="mmseg.LoadImageFromFile"), dict(type="mmseg.LoadAnnotations"), dict(type="mmseg.PackSegInputs")]


class DoesNotFit(ValueError):
    """A benchmark whose metric cannot score what a model answers with."""


class BenchmarkSetup(NamedTuple):
    """A benchmark: config of its dataset, its words, and the metric of ``ovseg.evaluation`` that scores it."""

    dataset: dict
    vocabulary: object
    metric: str = "OpenVocabIoU"


def _scenes() -> dict[str, BenchmarkSetup]:
    objects, rows = "scene_objects", {}
    for styles in ("seen", "unseen"):
        for candidates in ("v20", "full"):
            dataset = dict(type="ovseg.ComposedScenes", styles=styles, candidates=candidates, count=300)
            rows[f"scenes_{styles}_{candidates}"] = BenchmarkSetup(dataset, "scenes")
        dataset = dict(type="ovseg.ScenePhrases", styles=styles, count=100)
        rows[f"scenes_phrases_{styles}"] = BenchmarkSetup(dataset, objects, "PhraseMetric")
        dataset = dict(type="ovseg.SceneBoxes", styles=styles, count=300)
        rows[f"scenes_boxes_{styles}"] = BenchmarkSetup(dataset, objects, "OpenVocabAP")
        rows[f"scenes_gt_boxes_{styles}"] = BenchmarkSetup(dataset, objects, "BoxAccuracy")
    return rows


def benchmarks() -> dict[str, BenchmarkSetup]:
    """Name → dataset, vocabulary, metric."""
    rows = {
        name: BenchmarkSetup(dict(type=f"ovseg.{row.dataset}", pipeline=_pipeline(row.reduce_zero_label)), name)
        for name, row in BENCHMARKS.items()
    }
    rows["camvid_mini"] = BenchmarkSetup(dict(type="ovseg.CamVidMini", pipeline=LOADERS), "camvid")
    rows["coco_mini"] = BenchmarkSetup(dict(type="ovseg.COCOMini", pipeline=LOADERS), "coco_panoptic")
    rows["coco_mini_phrases"] = BenchmarkSetup(dict(type="ovseg.COCOMiniPhrases"), "coco_things", "PhraseMetric")
    rows["coco_mini_boxes"] = BenchmarkSetup(dict(type="ovseg.COCOMiniBoxes"), "coco_things", "OpenVocabAP")
    rows["coco_mini_gt_boxes"] = BenchmarkSetup(dict(type="ovseg.COCOMiniBoxes"), "coco_things", "BoxAccuracy")
    return rows | _scenes()


def _check_fits(model: str, name: str, rows: dict[str, BenchmarkSetup]):
    """Refuse a benchmark whose metric cannot score what a model of ovseg answers with."""
    metric = getattr(find_component(model, SCOPE), "metric", None)
    if metric not in (None, rows[name].metric):
        fitting = ", ".join(other for other, row in rows.items() if row.metric == metric)
        raise DoesNotFit(
            f"benchmark {name!r} is scored by {rows[name].metric}, which cannot read the answers of {model}; for this "
            f"config give --benchmark one of: {fitting}."
        )


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


def own_test(cfg: Config, work_dir: str) -> Config:
    """Let a config be measured on its own test set, in place: scores go to ``work_dir``."""
    cfg.test_evaluator.work_dir = work_dir
    cfg.model_wrapper_cfg = dict(type="ovseg.FrozenWrapper")
    return cfg


def _publish(cfg: Config, name: str, vocabulary):
    """Words and published settings of a benchmark, put into a model's config."""
    cfg.model.vocabulary = vocabulary
    cfg.model.published, changes = split_row(cfg.get("benchmarks", {}).get(name, {}))
    for key, change in changes.items():
        cfg.model[key] = changed(cfg.model.get(key), change)
        if "type" not in cfg.model[key]:
            raise ValueError(
                f"benchmarks.{name}.{key} changes {', '.join(change)}, but the config's model names no {key}: say "
                f"which one is meant, {key}=dict(type='…', {next(iter(change), '')}=…)."
            )


def _own_pipeline(cfg: Config, dataset: str) -> list[dict]:
    """A trained detector's pipeline of validation or test, with the loaders of another dataset."""
    own = cfg.get("test_dataloader") or cfg.val_dataloader
    pictures, truth = BOX_LOADERS[dataset]
    kinds = {}
    for pair in BOX_LOADERS.values():
        kinds |= {_bare(pair[0]): pictures, _bare(pair[1]): truth}
    return [kinds.get(_bare(step), dict(step)) for step in own.dataset.pipeline]


def _bare(step: dict) -> str:
    return step["type"].rpartition(".")[2]


def set_benchmark(cfg: Config, name: str, work_dir: str) -> Config:
    """Point a freshly read config at a benchmark, in place.

    Raises:
        ValueError: unknown benchmark, with the nearest known one; one for another kind of model; a row that changes a
            component which has no type.
    """
    rows = benchmarks()
    if name not in rows:
        raise ValueError(f"unknown benchmark {name!r}. {did_you_mean(name, rows)}There are: {', '.join(rows)}.")
    _check_fits(cfg.model.type, name, rows)
    dataset, vocabulary, metric = rows[name]
    if getattr(find_component(cfg.model.type, SCOPE), "own_pipeline", False):
        dataset, cfg.words = dict(dataset, pipeline=_own_pipeline(cfg, dataset["type"])), vocabulary
    else:
        _publish(cfg, name, vocabulary)
    cfg.test_dataloader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type="mmengine.DefaultSampler", shuffle=False),
        collate_fn=dict(type="mmengine.pseudo_collate"),
        dataset=dataset,
    )
    cfg.test_evaluator = dict(type=f"ovseg.{metric}", work_dir=work_dir)
    cfg.test_cfg = dict(type="mmengine.TestLoop")
    cfg.model_wrapper_cfg = dict(type="ovseg.FrozenWrapper")
    return cfg
