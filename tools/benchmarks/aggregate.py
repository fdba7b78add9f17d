"""What CAT-Seg's aggregation costs beside the tower: time and memory as ratios, measured in the same run.

    python tools/benchmarks/aggregate.py --out docs/tables           # ViT-B/16 shapes with random weights, 384 px
    python tools/benchmarks/aggregate.py --classes 150 --runs 2      # a short look

The bare tower is one pass through all blocks to the image embedding, of one view.  ``dense`` is CAT-Seg's extractor,
``aggregation`` its scorer on kept features: what a change of words costs.  Every run comes right after one of the
tower, and the ratio is the median of these pairs.  Memory is the highest sum of what torch holds at a time on the CPU
above the start of a pass, counted by its profiler; ``--memory`` is the budget of the steps (``CostAggregation``).
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from methods import measure, publish, random_tower

from ovseg.catseg import CostScore
from ovseg.dense import CATSeg
from ovseg.progress import track
from ovseg.towers import Tower


def workloads(tower: Tower, side: int, classes: list[int], memory: int) -> dict[str, Callable]:
    """Name → one pass over a random view of ``side`` × ``side`` pixels, the bare tower first."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, side, side, generator=generator)
    dense = CATSeg()
    scorer = CostScore(
        scratch=True, width=tower.width, aggregation=dict(embed_dim=tower.embed_dim, memory=memory)
    ).eval()
    features = dense(tower, images)

    def bare():
        return tower.project(tower.advance(tower.start(images), len(tower.blocks)).x[:, :1])

    work: dict[str, Callable] = {"tower": bare, "dense": lambda: dense(tower, images)}
    for number in classes:
        text = F.normalize(torch.randn(number, tower.embed_dim, generator=generator), dim=1)
        work[f"aggregation, {number} classes"] = lambda text=text: scorer(features, text)
    return work


def markdown(report: dict) -> str:
    lines = [
        f"{report['tower']}, one view of {report['side']} px, {report['threads']} thread(s), {report['runs']} pairs of "
        f"runs, a budget of {report['budget MiB']} MiB, torch {report['torch']}.",
        "",
        "| | time, × | memory, × |",
        "|---|---|---|",
    ]
    for name, row in report["rows"].items():
        time = f"{row['time ratio']:.2f} ({row['time ms']:.0f} ms)"
        lines.append(f"| {name} | {time} | {row['memory ratio']:.2f} ({row['memory MiB']:.0f} MiB) |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[150, 847], metavar="T")
    parser.add_argument("--side", type=int, default=384, metavar="PX")
    parser.add_argument("--memory", type=int, default=64, metavar="MIB", help="budget of the aggregation's steps")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs per row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for aggregate_speed.md and .json; only printed unless given")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter
    tower = random_tower()
    report = {"tower": tower.card.name, "side": args.side, "threads": args.threads, "runs": args.runs}
    report |= {"budget MiB": args.memory, "torch": torch.__version__, "rows": {}}
    with torch.inference_mode():
        work = workloads(tower, args.side, args.classes, args.memory * 2**20)
    for name in track(list(work)[1:], "rows"):
        report["rows"] |= measure({"tower": work["tower"], name: work[name]}, args.runs, warmup=1)
    publish("aggregate_speed", report, markdown(report), args.out, args.json)


if __name__ == "__main__":
    main()
