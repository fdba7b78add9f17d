"""Measure a config on benchmarks: mIoU, mAcc, aAcc, a table per class, and the protocol beside every number.

    python tools/test.py configs/naclip/naclip_vitb16_openai.py --benchmark voc20
    python tools/test.py configs/sclip/sclip_tiny.py --benchmark camvid_mini coco_mini scenes_seen_v20
    torchrun --nproc_per_node 2 tools/test.py CONFIG --benchmark voc20 --launcher pytorch

Several configs and benchmarks give one table.  The results of CONFIG go to
``<work-dir>/<config>/metrics_<dataset>.json``,
the table to ``<work-dir>/results.md`` and ``results.json``.
"""

import argparse
import os
import sys
from pathlib import Path


def parse(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", metavar="CONFIG")
    parser.add_argument(
        "--benchmark", nargs="+", default=["voc20"], metavar="NAME", help="see ovseg/engine/benchmarks.py"
    )
    parser.add_argument("--weights", help="other weights than the config's")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/test"))
    parser.add_argument("--limit", type=int, help="only the first images of each benchmark")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="strict overrides of the config"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def run(args, config: str, benchmark: str) -> dict:
    """Scores of one config on one benchmark."""
    from mmengine.runner import Runner

    from ovseg.engine.benchmarks import set_benchmark
    from ovseg.engine.config import apply_overrides, load_config
    from ovseg.engine.launch import start_processes
    from ovseg.registry import check_components

    cfg = load_config(config)
    cfg.work_dir = str(args.work_dir / Path(config).stem)
    set_benchmark(cfg, benchmark, cfg.work_dir)
    if args.weights:
        cfg.model.weights = args.weights
    if args.limit:
        cfg.test_dataloader.dataset.indices = args.limit
    apply_overrides(cfg, args.cfg_options)
    check_components(cfg, cfg.default_scope)
    cfg.launcher = args.launcher
    start_processes(cfg)
    cfg.pop("benchmarks", None)
    cfg.experiment_name = f"{Path(config).stem}-{benchmark}-{os.getpid()}"
    return Runner.from_cfg(cfg).test()


def table(rows: list[dict]) -> str:
    """Markdown, a row per config and benchmark."""
    keys = list(dict.fromkeys(key for row in rows for key in row if key not in ("config", "benchmark")))
    lines = [f"| config | benchmark | {' | '.join(keys)} |", f"|---|---|{'---|' * len(keys)}"]
    for row in rows:
        values = " | ".join(f"{row[key]:.2f}" if key in row else "" for key in keys)
        lines.append(f"| {row['config']} | {row['benchmark']} | {values} |")
    return "\n".join(lines)


def main(argv=None) -> int:
    args = parse(argv)
    from mmengine.dist import is_main_process

    from ovseg.compat.checkpoint import atomic_write
    from ovseg.evaluation.report import write_json

    rows = []
    for config in args.configs:
        for benchmark in args.benchmark:
            try:
                scores = run(args, config, benchmark)
            except (ValueError, KeyError, FileNotFoundError) as error:
                print(f"tools/test.py: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
                return 2
            rows.append(
                {"config": Path(config).stem, "benchmark": benchmark, **{k: float(v) for k, v in scores.items()}}
            )
            if is_main_process():  # after every run, so that an interruption loses nothing
                write_json(args.work_dir / "results.json", {"rows": rows})
                with atomic_write(args.work_dir / "results.md") as path:
                    Path(path).write_text(table(rows) + "\n", encoding="utf-8")
                print(table(rows[-1:]), flush=True)
    if is_main_process():
        print(f"\n{table(rows)}\n\nsaved in {args.work_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
