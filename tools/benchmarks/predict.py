"""What a whole prediction costs over the bare tower: time as a ratio, memory beyond the tower's own.

    python tools/benchmarks/predict.py --json docs/tables/predict.json        # ViT-B/16 shape, random weights
    python tools/benchmarks/predict.py --json out.json --classes 150 10000 --size 512 683 --runs 3     # a short look
    python tools/benchmarks/predict.py --json out.json --size 1024 2048 --plain 0                      # memory

The bare tower is one pass of the windows of the picture, as one batch, through all blocks to the image embedding.  A
prediction is what ``Predictor`` does with a picture that was read and words that were encoded: resize, normalize, cut,
tower, dense extractor, scores, label map of the picture's size.  ``plain`` is the loop of published evaluation code on
the same features: the maps of all words of every window enlarged, added, averaged and resized, then the softmax and
the argmax; it is run up to ``--plain`` classes, because it needs T·H·W floats a few times over.

``new words`` is what the same picture costs with other words: their scores and a label map, no tower.

Every prediction comes right after a pass of the tower, and the ratio is the median of these pairs; ``spread`` are its
quartiles.  ``extra_mb`` is by how many megabytes (10⁶) the highest sum of what torch holds on the CPU during a
prediction, counted by its profiler, lies above that of the bare tower.

``tower`` is also set against the machine: its floating-point operations, counted by torch, per second, as a share of
what a product of two square matrices reaches.  Embeddings of words, 4·E bytes each, are not in ``extra_mb``: they are
there before.

The picture is either ``--picture`` or smooth noise, the words are random unit vectors: with random weights patches and
words have no structure that would make it easy to rule words out.
"""

import argparse
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from methods import peak_memory, random_tower, timed
from torch.utils.flop_counter import FlopCounterMode

import ovseg
from ovseg.apis.base_predictor import ModelWords
from ovseg.apis.predictor import Predictor
from ovseg.dense.windows import windows
from ovseg.files import write_json
from ovseg.pictures.images import load_image
from ovseg.predict.class_maps import ImageFeatures
from ovseg.predict.resize import target_size
from ovseg.predict.segment import EncodedWords
from ovseg.progress import track
from ovseg.towers import Tower, load_tower

TARGETS = {21: 1.08, 150: 1.10, 847: 1.15, 10000: 1.40}
MEMORY_TARGETS = {21: 150, 150: 150, 847: 200, 10000: 300}


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A uint8 RGB picture (H, W, 3) of coarse blobs with fine grain."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, height, width)
    for cells in (4, 16, 64):
        coarse = torch.randn(1, 3, cells, cells, generator=generator)
        total += F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return (128 + 48 * total[0].permute(1, 2, 0)).clamp(0, 255).byte().numpy()


def random_words(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """(T, E) unit vectors."""
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def plain(predictor: Predictor, encoded: ImageFeatures, text: torch.Tensor) -> torch.Tensor:
    """Label map (H, W) by the maps of all words at every pixel."""
    pipeline = predictor.pipeline
    total = torch.zeros(len(text), *encoded.resized)
    count = torch.zeros(encoded.resized)
    boxes = iter(encoded.boxes)
    for batch in encoded.parts:
        left, top, right, bottom = batch.padding
        for scores in pipeline.scorer(batch, text):
            y0, x0, y1, x1 = next(boxes)
            padded = (y1 - y0 + top + bottom, x1 - x0 + left + right)
            maps = F.interpolate(scores[None], padded, mode="bilinear", align_corners=False)[0]
            total[:, y0:y1, x0:x1] += maps[:, top : top + y1 - y0, left : left + x1 - x0]
            count[y0:y1, x0:x1] += 1
    maps = F.interpolate((total / count)[None], encoded.size, mode="bilinear", align_corners=False)[0]
    return (pipeline.protocol.logit_scale * maps).softmax(0).argmax(0)


class Work:
    """The workloads on one picture.

    Args:
        tower: image tower.
        method: see ``ovseg.load``; ``settings`` too.
        image: (H, W, 3) uint8 RGB.
    """

    def __init__(self, tower: Tower, method: str, image: np.ndarray, **settings):
        self.predictor = ovseg.load(method, tower=tower, cache=False, **settings)
        self.image, protocol = image, self.predictor.pipeline.protocol
        resized = target_size(*image.shape[:2], protocol)
        self.boxes = windows(*resized, protocol.window, protocol.stride)
        top, left, bottom, right = self.boxes[0]
        generator = torch.Generator().manual_seed(0)
        self.views = torch.randn(len(self.boxes), 3, bottom - top, right - left, generator=generator)

    def bare(self):
        tower = self.predictor.pipeline.tower
        return tower.project(tower.advance(tower.start(self.views), len(tower.blocks)).x[:, :1])

    def words(self, count: int):
        """Give the predictor ``count`` words, by their embeddings."""
        vocabulary = ovseg.Vocabulary.parse([f"word {i}" for i in range(count)])
        self.text = random_words(count, self.predictor.pipeline.tower.embed_dim)
        self.predictor._words = ModelWords(vocabulary, EncodedWords(vocabulary, self.text))

    def predict(self):
        return self.predictor.set_image(self.image).predict().labels

    def rescore(self):
        """After ``predict``: the label map anew, as with other words."""
        return self.predictor.predict().labels

    def plain(self):
        pipeline = self.predictor.pipeline
        return plain(self.predictor, pipeline.encode(self.image), self.text)


@torch.inference_mode()
def paired(bare: Callable, run: Callable, runs: int, warmup: int = 1) -> dict:
    """Median ratio of pairs and its quartiles, and median milliseconds of ``run``."""
    ratios, times = [], []
    for i in range(-warmup, runs):
        before, spent = timed(bare), timed(run)
        if i >= 0:
            ratios.append(spent / before)
            times.append(spent)
    low, middle, high = statistics.quantiles(ratios, n=4) if runs > 1 else ratios * 3
    return {"ratio": round(middle, 4), "spread": [round(low, 4), round(high, 4)], "ms": statistics.median(times)}


@torch.inference_mode()
def peak_share(bare: Callable, side: int = 2048, runs: int = 5) -> dict:
    """GFLOP/s of the tower and of a matrix product, medians, and their ratio."""
    with FlopCounterMode(display=False) as counter:
        bare()
    a, b = torch.randn(2, side, side)
    out = torch.empty(side, side)
    pairs = [(timed(bare), timed(lambda: torch.mm(a, b, out=out))) for _ in range(runs + 1)][1:]
    tower, product = (statistics.median(times) for times in zip(*pairs, strict=True))
    speeds = counter.get_total_flops() / tower / 1e6, 2 * side**3 / product / 1e6
    return {
        "tower_gflops": round(speeds[0], 1),
        "matmul_gflops": round(speeds[1], 1),
        "share": round(speeds[0] / speeds[1], 3),
    }


def measure(work: Work, classes: list[int], runs: int, most_plain: int, exact: Work | None = None) -> list[dict]:
    """One row per number of classes; ``exact`` has the labels to compare with."""
    with torch.inference_mode():
        own = peak_memory(work.bare)
    rows = []
    for count in track(classes, "classes"):
        work.words(count)
        row = {"classes": count} | paired(work.bare, work.predict, runs)
        row["new_words_ms"] = round(statistics.median(timed(work.rescore) for _ in range(max(3, runs))), 1)
        row["extra_mb"] = round((peak_memory(work.predict) - own) * 2**20 / 1e6, 1)
        if exact is not None:
            exact.words(count)
            row["equal_labels"] = round(float((exact.predict() == work.predict()).mean()), 5)
        if count <= most_plain:
            row["plain_ratio"] = paired(work.bare, work.plain, runs)["ratio"]
        rows.append(row)
    return rows


def markdown(report: dict) -> str:
    (height, width), peak = report["size"], report["peak"]
    lines = [
        f"{report['method']}, {report['tower']}, picture {height}×{width}, {report['windows']} windows; "
        f"{report['precision']}{', compiled' if report['compile'] else ''}; "
        f"{report['machine']}, {report['threads']} threads, {report['runs']} pairs of runs, torch {report['torch']}. "
        f"The tower runs at {peak['tower_gflops']:.0f} GFLOP/s, {peak['share']:.0%} of a matrix product's "
        f"{peak['matmul_gflops']:.0f}.",
        "",
        "| classes | whole ÷ bare tower | quartiles | target | plain loop | new words | memory beyond it | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        low, high = row["spread"]
        target, memory = TARGETS.get(row["classes"]), MEMORY_TARGETS.get(row["classes"])
        cells = [
            f"{row['classes']:,}",
            f"{row['ratio']:.3f} ({row['ms']:.0f} ms)",
            f"{low:.3f} – {high:.3f}",
            f"≤ {target:.2f}" if target else "",
            f"{row['plain_ratio']:.2f}" if "plain_ratio" in row else "",
            f"{row['new_words_ms']:.0f} ms",
            f"{row['extra_mb']:.0f} MB",
            f"≤ {memory} MB" if memory else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    shares = [f"{row['equal_labels']:.3%} at {row['classes']:,}" for row in report["rows"] if "equal_labels" in row]
    lines += ["", f"Labels equal to those in float32: {', '.join(shares)} classes."] if shares else []
    return "\n".join(lines) + "\n"


def processor() -> str:
    """The name of the processor, where the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} cores)" if names else platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, metavar="PATH", help="where to write the numbers")
    parser.add_argument("--classes", type=int, nargs="+", default=[21, 150, 847, 10000], metavar="K")
    parser.add_argument("--size", type=int, nargs=2, default=[512, 683], metavar=("H", "W"), help="of the picture")
    parser.add_argument("--arch", default="ViT-B-16", help="shape of the tower (open_clip's names), random weights")
    parser.add_argument("--weights", help="these weights in place of random ones; see ovseg.load")
    parser.add_argument("--method", default="maskclip")
    parser.add_argument("--short-side", type=int, default=336, metavar="PX")
    parser.add_argument("--picture", help="a picture in place of noise; --size is then not used")
    parser.add_argument("--precision", default="float32", help="of the prediction; the bare tower keeps float32")
    parser.add_argument("--compile", action="store_true", help="the prediction's tower and extractor")
    parser.add_argument("--runs", type=int, default=11, help="pairs of runs per row")
    parser.add_argument("--threads", type=int, help="torch's own choice unless given")
    parser.add_argument("--plain", type=int, default=847, metavar="K", help="run the plain loop up to so many classes")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter
    tower = load_tower(args.weights) if args.weights else random_tower(arch=args.arch)
    image = load_image(args.picture).array if args.picture else noise(*args.size)
    settings = dict(short_side=args.short_side, window=224, stride=112, refine=[])
    work = Work(tower, args.method, image, precision=args.precision, compile=args.compile, **settings)
    plain_work = Work(tower, args.method, image, **settings) if args.precision != "float32" else None
    report = {
        "method": args.method,
        "tower": tower.card.name,
        "size": list(image.shape[:2]),
        "windows": len(work.boxes),
        "precision": args.precision,
        "compile": args.compile,
        "machine": processor(),
        "threads": torch.get_num_threads(),
        "runs": args.runs,
        "torch": torch.__version__,
        "peak": peak_share(work.bare),
        "rows": measure(work, args.classes, args.runs, args.plain, plain_work),
    }
    write_json(args.json, report)
    print(markdown(report), end="")


if __name__ == "__main__":
    main()
