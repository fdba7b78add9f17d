"""Measure configs on benchmarks: mIoU, mAcc, aAcc, a table per class, and the protocol beside every number.

    ovseg test naclip_vitb16_openai --benchmark voc20
    ovseg test configs/*/*_tiny.py --benchmark camvid_mini coco_mini scenes_seen_v20
    ovseg test denseclip_tiny_camvid --checkpoint work_dirs/run/iter_800.safetensors
    torchrun --nproc_per_node 2 -m ovseg.cli test CONFIG --benchmark voc20 --launcher pytorch

A config is a file, or the name of a config of the package (``ovseg configs``).

Without ``--benchmark`` a config is measured on its own test set, and on voc20 if it has none.  Trained configs need a
checkpoint; unless ``--checkpoint`` names one, it is the file beside the config, ``<config>.safetensors``.

Of several configs, those that a benchmark does not fit (boxes of phrases, label maps) are left out of it, with a note.
Training-free configs are measured together: every picture is loaded once, and methods that read one tower share its
blocks.  The scores of each go to ``<work-dir>/<config>/metrics_<dataset>.json``, all of them to
``<work-dir>/results.json`` and, as a table, ``results.md``; both are rewritten after every benchmark.  ``--resume``
keeps rows that the same method, options, weights, words, settings and ``--limit`` have measured, and replaces others.
"""

import argparse
import json
import os
from pathlib import Path

from ovseg.compat.config_scope import find_config
from ovseg.compat.extras import require
from ovseg.printable import say

from .run_options import parse_run

TRAINING = ("train_", "val_", "optim_wrapper", "param_scheduler")  # keys that measuring has no use for


def parse(argv=None):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="ovseg test", description=__doc__, formatter_class=raw)
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument("--benchmark", nargs="+", default=[None], metavar="NAME", help="see ovseg/engine/benchmarks.py")
    parser.add_argument("--checkpoint", type=Path, help="of a trained config")
    parser.add_argument("--weights", help="other weights than the config's")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/test"))
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first images of each benchmark")
    parser.add_argument("--resume", action="store_true", help="keep rows of results.json that would be the same")
    return parse_run(parser, argv)


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of images: give 1 or more, or leave it out for all")
    return int(text)


def prepare(args, config: str, benchmark: str | None):
    """The checked config of one measurement.

    Raises:
        FileNotFoundError, KeyError, ValueError: no such config, benchmark or checkpoint.
    """
    from ovseg.engine.benchmarks import own_test, set_benchmark
    from ovseg.engine.config import apply_overrides, load_config
    from ovseg.registry import check_components

    cfg = load_config(config)
    cfg.work_dir = str(args.work_dir / Path(config).stem)
    if benchmark is None and "test_dataloader" in cfg:
        own_test(cfg, cfg.work_dir)
    else:
        set_benchmark(cfg, benchmark or "voc20", cfg.work_dir)
    if "train_dataloader" in cfg:
        cfg.load_from = str(trained_weights(args, config))
    if args.weights:
        cfg.model.weights = args.weights
    if args.limit:
        cfg.test_dataloader.dataset.indices = args.limit
    apply_overrides(cfg, args.cfg_options)
    check_components(cfg, cfg.default_scope)
    cfg.launcher = args.launcher
    cfg.pop("benchmarks", None)
    return cfg


def trained_weights(args, config: str) -> Path:
    """The checkpoint of a trained config.

    Raises:
        FileNotFoundError: there is none.
    """
    beside = find_config(config).with_suffix(".safetensors")
    if args.checkpoint is None and not beside.is_file():
        where = f"configs/{beside.parent.name}/{beside.name}"
        raise FileNotFoundError(
            f"{config} describes a trained model, and there is no {beside.name} beside it: give --checkpoint FILE, or "
            f"train it first with ovseg train {config}. The checkpoints that come with ovseg are in its repository "
            f"({where}, where there is one), not in the installed package."
        )
    return args.checkpoint or beside


def fitting(args, configs: list[str], benchmark: str) -> dict:
    """The prepared configs, by name, that a benchmark fits.

    Raises:
        ValueError: it fits none of them.
    """
    from ovseg.engine.benchmarks import DoesNotFit

    cfgs, refused = {}, []
    for path in configs:
        try:
            cfgs[Path(path).stem] = prepare(args, path, benchmark)
        except DoesNotFit as error:
            refused.append(error)
            say(f"{Path(path).stem}: left out of {benchmark}, which does not fit it", error=True)
    if refused and not cfgs:
        raise refused[0]
    return cfgs


def measure(cfgs: dict, benchmark: str | None, limit: int | None) -> list[dict]:
    """A row per config of one group (``ovseg.engine.together``): scores and what they were measured with."""
    from ovseg.engine.launch import start_processes
    from ovseg.engine.planned import provenance_of
    from ovseg.engine.together import together
    from ovseg.engine.trainer import Trainer

    cfg = together(cfgs)
    start_processes(cfg)
    cfg.experiment_name = f"{'-'.join(list(cfgs)[:3])}-{benchmark}-{os.getpid()}"
    for key in [key for key in cfg if key.startswith(TRAINING)]:
        cfg.pop(key)
    cfg.custom_hooks, cfg.log_level = [dict(type="ovseg.ProgressHook")], "WARNING"
    words = cfg.pop("words", None)
    runner = Trainer.from_cfg(cfg)
    if words is not None:
        runner.bare_model.set_classes(words)
    runner.test()
    name = runner.test_loop.dataloader.dataset.metainfo["dataset_name"]
    rows = []
    for config, own in cfgs.items():
        report = json.loads((Path(own.work_dir) / f"metrics_{name}.json").read_text(encoding="utf-8"))
        report.pop("classes", None)
        if not report["fingerprint"]:
            report |= provenance_of(runner.bare_model, own).to_dict()
        own_test = benchmark is None
        rows.append({"config": config, "benchmark": benchmark or name, "own_test": own_test, "limit": limit, **report})
    return rows


def is_measured(row: dict, cfg, limit: int | None) -> bool:
    """Whether a row is what measuring a prepared config would give."""
    from ovseg.engine.planned import planned
    from ovseg.results.provenance import Provenance

    try:
        return row.get("limit") == limit and not Provenance.from_dict(row).differences(planned(cfg))
    except (KeyError, TypeError, AttributeError):  # a row that was changed by hand
        return False


def asked(row: dict) -> str | None:
    """What ``--benchmark`` was for a row; None for the config's own test set."""
    return None if row.get("own_test") else row["benchmark"]


def table(rows: list[dict]) -> str:
    """Markdown, a row per config and benchmark, then the protocols."""
    from ovseg.results.provenance import Provenance

    keys = list(dict.fromkeys(key for row in rows for key in row["scores"]))
    lines = [
        f"| config | benchmark | images | {' | '.join(keys)} | protocol |",
        f"|---|---|---|{'---|' * len(keys)}---|",
    ]
    protocols = {}
    for row in rows:
        values = " | ".join(f"{row['scores'][key]:.2f}" if row["scores"].get(key) is not None else "" for key in keys)
        provenance = Provenance.from_dict(row)
        fingerprint = provenance.fingerprint
        protocols[fingerprint] = ", ".join(f"{k}={v}" for k, v in provenance.protocol.items())
        lines.append(f"| {row['config']} | {row['benchmark']} | {row['images']} | {values} | {fingerprint} |")
    weights = ", ".join(dict.fromkeys(str(Provenance.from_dict(row).weights) for row in rows))
    return "\n".join(
        [*lines, "", f"Weights: {weights}. Protocols:", ""] + [f"* {f}: {p}" for f, p in protocols.items()]
    )


def saved_rows(path: Path) -> list[dict]:
    """What an earlier run measured.

    Raises:
        ValueError: a file of another kind.
    """
    from ovseg.compat.untrusted import read_json

    content = read_json(path)
    rows = content.get("rows") if isinstance(content, dict) else None
    needed = {"config": str, "benchmark": str, "scores": dict, "protocol": (dict, type(None))}
    for row in rows if isinstance(rows, list) else [None]:
        if not isinstance(row, dict) or not all(isinstance(row.get(key), kind) for key, kind in needed.items()):
            raise ValueError(f"{path} is not what ovseg test saves, so there is nothing to resume from: remove it.")
    return rows


def save(work_dir: Path, rows: list[dict]):
    from ovseg.files import write_json, write_text

    write_json(work_dir / "results.json", {"rows": rows})
    write_text(work_dir / "results.md", table(rows) + "\n")


def main(argv=None) -> int:
    args = parse(argv)
    require("mm", "ovseg test")
    from mmengine.dist import is_main_process

    from ovseg.engine.together import groups

    saved = args.work_dir / "results.json"
    try:
        rows = saved_rows(saved) if args.resume and saved.exists() else []
        for benchmark in args.benchmark:
            cfgs = fitting(args, args.configs, benchmark)
            known = {row["config"]: row for row in rows if asked(row) == benchmark}
            done = [name for name in cfgs if name in known and is_measured(known[name], cfgs[name], args.limit)]
            if done:
                say(f"{benchmark or 'own test'}: {len(done)} already there", error=True)
            for group in groups({name: cfg for name, cfg in cfgs.items() if name not in done}):
                fresh = measure(group, benchmark, args.limit)
                keys = {(row["config"], row["benchmark"]) for row in fresh}
                rows = [row for row in rows if (row["config"], row["benchmark"]) not in keys] + fresh
                if is_main_process():  # after every run, so that an interruption loses nothing
                    save(args.work_dir, rows)
                    print(table(fresh), flush=True)
    except (ValueError, KeyError, FileNotFoundError) as error:
        say(f"ovseg test: {error.args[0] if isinstance(error, KeyError) else error}", error=True)
        return 2
    if is_main_process():
        print(f"\n{table(rows)}\n\nsaved in {args.work_dir}")
    return 0
