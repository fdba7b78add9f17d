"""What regions cost beside the tower: time and memory as ratios, measured in the same run.

    python tools/benchmarks/regions.py --out docs/tables                 # ViT-B/16 with random weights, 640 px
    python tools/benchmarks/regions.py --side 224 --boxes 100 --runs 1   # a short look

The bare tower is one pass through all blocks to the image embedding, of one picture.  Pooling reads its dense map, the
classifier compares the pooled embeddings with the words, ``detection`` is all that ``DenseDetector.decode`` does for a
change of words.  Crops are read at 224 px, in one batch and one by one.  Every run comes right after one of the tower,
and the ratio is the median of these pairs.  Memory is the highest sum of what torch holds at a time on the CPU above
the start of a pass, counted by its profiler.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from methods import measure, publish, random_tower

from ovseg.dense import CLIPSurgery
from ovseg.dense.features import DenseFeatures
from ovseg.predict.class_maps import ImageFeatures
from ovseg.predict.detect import DenseDetector, EncodedPicture, Words
from ovseg.predict.pipeline import Pipeline
from ovseg.predict.protocol import Protocol
from ovseg.progress import track
from ovseg.regions.crops import CropReader
from ovseg.regions.pooling import pool_boxes, pool_masks
from ovseg.score.text_classifier import cosine_logits
from ovseg.towers import Tower

TARGETS = {"boxes, one bin": 0.1}


def workloads(tower: Tower, side: int, count: int, words: list[int], crops: int) -> dict[str, Callable]:
    """Name → one pass over a random picture of ``side`` × ``side`` pixels, the bare tower first."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, side, side, generator=generator)
    grid, depth = tower.grid_of(side, side), len(tower.blocks)
    coarse = torch.randn(1, tower.embed_dim, 6, 6, generator=generator)  # smooth, so that there are regions to find
    dense = F.normalize(F.interpolate(coarse, grid, mode="bilinear", align_corners=False), dim=1)
    corners = torch.rand(count, 2, generator=generator) * side * 0.8
    sides = 8 + torch.rand(count, 2, generator=generator) * side * 0.4
    boxes = torch.cat([corners, (corners + sides).clamp(max=side)], 1)
    masks = torch.rand(count, *grid, generator=generator) < 0.1
    regions = torch.randn(count, tower.embed_dim, generator=generator)
    text = F.normalize(torch.randn(max(words), tower.embed_dim, generator=generator), dim=1)
    pixels = torch.rand(3, 256, 256, generator=generator)
    small = boxes[:crops] * (256 / side)

    def bare():
        return tower.project(tower.advance(tower.start(images), depth).x[:, :1])

    work: dict[str, Callable] = {
        "tower": bare,
        "boxes, one bin": lambda: pool_boxes(dense, [boxes], (side, side)),
        "boxes, 7×7 bins": lambda: pool_boxes(dense, [boxes], (side, side), 7),
        "masks": lambda: pool_masks(dense, [masks]),
    }
    for number in words:
        work[f"classifier, {number} words"] = lambda t=text[:number]: cosine_logits(regions, t, 100.0)
    for number in words:
        work[f"detection, {number} words"] = detection(tower, side, dense, text[:number])
    for name, batch in ((f"{crops} crops, one batch", crops), (f"{crops} crops, one by one", 1)):
        work[name] = lambda batch=batch: CropReader(tower, (1.0,), batch=batch)(pixels, small)
    return work


def detection(tower: Tower, side: int, dense: torch.Tensor, text: torch.Tensor) -> Callable:
    """``DenseDetector.decode`` of kept features."""
    engine = DenseDetector(Pipeline(tower, CLIPSurgery(), Protocol(window=None)), cache=False)
    part = DenseFeatures(dense, dense.mean((2, 3)))
    windows = ImageFeatures([part], [(0, 0, side, side)], (side, side), (side, side), None)
    picture = EncodedPicture(windows, dense, np.zeros((side, side, 3), np.uint8))
    words = Words(text, torch.arange(len(text)), len(text), None, False)
    return lambda: engine.decode(picture, words)


def markdown(report: dict) -> str:
    lines = [
        f"{report['tower']}, one picture of {report['side']} px, {report['boxes']} regions, {report['threads']} "
        f"thread(s), {report['runs']} pairs of runs, torch {report['torch']}.",
        "",
        "| | time, × | memory, × | target, time |",
        "|---|---|---|---|",
    ]
    for name, row in report["rows"].items():
        time = f"{row['time ratio']:.3f} ({row['time ms']:.1f} ms)"
        target = TARGETS.get(name)
        verdict = f"≤ {target}{', missed' if row['time ratio'] > target else ''}" if target else ""
        lines.append(f"| {name} | {time} | {row['memory ratio']:.2f} ({row['memory MiB']:.0f} MiB) | {verdict} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=640, metavar="PX")
    parser.add_argument("--boxes", type=int, default=1000, metavar="R")
    parser.add_argument("--words", type=int, nargs="+", default=[20, 100, 1000, 10_000], metavar="T")
    parser.add_argument("--crops", type=int, default=16)
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs per row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for regions_speed.md and .json; only printed unless given")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter
    tower = random_tower()
    report = {"tower": tower.card.name, "side": args.side, "boxes": args.boxes, "threads": args.threads}
    report |= {"runs": args.runs, "torch": torch.__version__, "rows": {}}
    with torch.inference_mode():
        work = workloads(tower, args.side, args.boxes, args.words, args.crops)
    for name in track(list(work)[1:], "rows"):
        report["rows"] |= measure({"tower": work["tower"], name: work[name]}, args.runs, warmup=1)
    publish("regions_speed", report, markdown(report), args.out, args.json)


if __name__ == "__main__":
    main()
