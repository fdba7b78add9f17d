"""What each method costs over the bare tower: time and memory as ratios, measured in the same run.

    python tools/benchmarks/methods.py --out docs/tables             # ViT-B/16 with random weights, 224 and 336 px
    python tools/benchmarks/methods.py --sizes 224 --runs 2 --methods sclip gem      # a short look
    python tools/benchmarks/methods.py --record                      # what `ovseg methods` shows, at 640×480 pixels

The bare tower is one pass through all blocks to the image embedding.  Every run of a method comes right after one of
the tower, the methods take turns, and the ratio is the median of these pairs: a busy machine slows both alike.
Memory is the highest sum of what torch holds at a time on the CPU above the start of a pass, counted by its profiler;
what scikit-learn and SciPy take for the clusters is not in it.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch.profiler import ProfilerActivity, profile

from ovseg.apis.methods import TIMES
from ovseg.dense.clip_dinoiser import Correlations
from ovseg.files import json_text, write_json, write_text
from ovseg.progress import track
from ovseg.refine import ClusterVote, Picture
from ovseg.registry import DENSE, named
from ovseg.rng import seeded
from ovseg.score import FeedbackScore
from ovseg.towers import Preprocess, Tower, TowerCard
from ovseg.towers.build import make_tower

TARGETS = dict.fromkeys(["vanilla", "maskclip", "sclip", "clearclip", "naclip"], 1.05) | {
    "cliptrase": 1.15,
    "cliptrase with ClusterVote": 1.3,
    "gem": 1.6,
    "clip_prs": 1.3,
}
WORDS = 20
PICTURE = 480, 640


def random_tower(seed: int = 0, arch: str = "ViT-B-16") -> Tower:
    """The shape of one of open_clip's models with random weights; its text tower is a stub.

    Raises:
        ValueError: an unknown name.
    """
    config = open_clip.get_model_config(arch)
    if config is None:
        raise ValueError(f"open_clip knows no {arch!r}; open_clip.list_models() gives the names, such as ViT-B-16.")
    with seeded(seed):
        text = CLIPTextCfg(context_length=77, width=64, heads=1, layers=1)
        clip = CLIP(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), text).eval()
    return make_tower(clip.visual, clip, Preprocess(), TowerCard(f"{arch}, random weights"))


def workloads(tower: Tower, side: int | tuple[int, int], only: list[str] | None = None) -> dict[str, Callable]:
    """Name → one pass over a random picture, the bare tower first.

    Args:
        tower: image tower.
        side: pixels of a square, or (H, W).
        only: methods by their folder in configs/; all unless given.

    Raises:
        ValueError: an unknown method.
    """
    generator = torch.Generator().manual_seed(0)
    height, width = (side, side) if isinstance(side, int) else side
    images = torch.randn(1, 3, height, width, generator=generator)
    labels = torch.randint(WORDS, (height, width), generator=generator)
    depth = len(tower.blocks)
    text = torch.nn.functional.normalize(torch.randn(WORDS, tower(images)[0].shape[1], generator=generator), dim=1)
    options = {"clip_dinoiser": {"correlations": Correlations(tower.width).eval()}}
    by_folder = named(DENSE)
    unknown = sorted(set(only or ()) - set(by_folder))
    if unknown:
        raise ValueError(f"unknown method(s) {', '.join(unknown)}: expected some of {', '.join(by_folder)}.")

    def bare():
        return tower.project(tower.advance(tower.start(images), depth).x[:, :1])

    work: dict[str, Callable] = {"tower": bare}
    for folder in only or by_folder:
        dense = by_folder[folder](**options.get(folder, {})).eval()
        work[folder] = lambda dense=dense: dense(tower, images)
        if folder == "cliptrase":
            refiner = ClusterVote(1.1, 7) if height > 224 else ClusterVote(0.7, 3)
            work["cliptrase with ClusterVote"] = lambda dense=dense, refiner=refiner: refiner.relabel(
                labels, Picture([dense(tower, images)], [(0, 0, height, width)], (height, width), None, None, None)
            )
        if folder == "resclip":
            scorer = FeedbackScore()
            work["resclip with FeedbackScore"] = lambda dense=dense, scorer=scorer: scorer(dense(tower, images), text)
    return work


def timed(run: Callable) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def peak_memory(run: Callable) -> float:
    """MiB that torch held on the CPU at most, above the start of ``run``."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        output = run()
    del output
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda item: item[0]):
        held += change
        peak = max(peak, held)
    return peak / 2**20


@torch.inference_mode()
def measure(work: dict[str, Callable], runs: int, warmup: int = 2, memory: bool = True) -> dict[str, dict[str, float]]:
    """Name → median milliseconds, MiB unless left out, and both as ratios over ``work["tower"]``."""
    bare = work["tower"]
    times = {name: [] for name in work}
    ratios = {name: [] for name in work}
    for run in range(-warmup, runs):
        for name, one in work.items():
            before = timed(bare)
            spent = before if name == "tower" else timed(one)
            if run >= 0:
                times[name].append(spent)
                ratios[name].append(spent / before)
    rows = {
        name: {"time ms": statistics.median(times[name]), "time ratio": statistics.median(ratios[name])}
        for name in work
    }
    if memory:
        peaks = {name: peak_memory(one) for name, one in work.items()}
        for name, row in rows.items():
            row |= {"memory MiB": peaks[name], "memory ratio": peaks[name] / peaks["tower"]}
    return rows


def markdown(report: dict) -> str:
    sizes = report["sizes"]
    first = (
        f"{report['tower']}, {report['threads']} thread(s), {report['runs']} pairs of runs, torch {report['torch']}."
    )
    header = [f"{size} px: time, ×" for size in sizes] + [f"{size} px: memory, ×" for size in sizes]
    lines = [first, "", "| | " + " | ".join([*header, "target, time"]) + " |", "|---|" + "---|" * (len(header) + 1)]
    for name in next(iter(sizes.values())):
        cells = [f"{rows[name]['time ratio']:.2f} ({rows[name]['time ms']:.0f} ms)" for rows in sizes.values()]
        cells += [f"{rows[name]['memory ratio']:.2f} ({rows[name]['memory MiB']:.0f} MiB)" for rows in sizes.values()]
        target = TARGETS.get(name)
        over = target and any(rows[name]["time ratio"] > target for rows in sizes.values())
        cells.append(f"≤ {target}{', missed' if over else ''}" if target else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def record(report: dict):
    """Write the times at ``PICTURE`` for ``ovseg methods``."""
    height, width = PICTURE
    rows = report["sizes"].pop(f"{width}x{height}")
    times = {name: round(row["time ratio"], 3) for name, row in rows.items() if name != "tower"}
    content = {"width": width, "height": height} | {k: v for k, v in report.items() if k != "sizes"} | {"times": times}
    write_json(TIMES, content)


def publish(name: str, report: dict, text: str, out: Path | None, as_json: bool = False):
    """Print the table, or JSON, and write both to ``<out>/<name>.md`` and ``.json`` where a folder is given."""
    if out:
        write_json(out / f"{name}.json", report)
        write_text(out / f"{name}.md", text)
    print(json_text(report) + "\n" if as_json else text, end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 336], metavar="PX")
    parser.add_argument("--runs", type=int, default=15, help="pairs of runs per method")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these, by their folders in configs/")
    parser.add_argument("--record", action="store_true", help="measure what `ovseg methods` shows, and nothing else")
    parser.add_argument("--out", type=Path, help="folder for methods_speed.md and .json; only printed unless given")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own chatter
    tower = random_tower()
    report = {"tower": tower.card.name, "threads": args.threads, "runs": args.runs, "torch": torch.__version__}
    report["sizes"] = {}
    for size in track([PICTURE] if args.record else args.sizes, "sizes"):
        with torch.inference_mode():
            work = workloads(tower, size, args.methods)
        work = {key: run for key, run in work.items() if not args.record or " with " not in key}
        name = f"{size[1]}x{size[0]}" if args.record else str(size)
        report["sizes"][name] = measure(work, args.runs, 1 if args.record else 2, not args.record)
    if args.record:
        record(report)
        return
    publish("methods_speed", report, markdown(report), args.out)


if __name__ == "__main__":
    main()
