"""What ``--benchmark NAME`` stands for: dataset, words and published settings.

A config's table ``benchmarks`` maps names to the settings its paper publishes for them; a benchmark without a row runs
with the method's own settings.
"""

from mmengine.config import Config

from ovseg.datasets.table import BENCHMARKS
from ovseg.registry import did_you_mean

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


def set_benchmark(cfg: Config, name: str, work_dir: str) -> Config:
    """Point a config at a benchmark, in place.

    Raises:
        ValueError: unknown benchmark, with the nearest known one.
    """
    rows = benchmarks()
    if name not in rows:
        raise ValueError(f"unknown benchmark {name!r}. {did_you_mean(name, rows)}There are: {', '.join(rows)}.")
    dataset, vocabulary = rows[name]
    cfg.model.vocabulary = vocabulary
    cfg.model.published = dict(cfg.get("benchmarks", {}).get(name, {}))
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
