"""Pictures per second of ``ovseg predict FOLDER``, by the number of processes that share the machine.

    python tools/benchmarks/throughput.py --out docs/tables                       # the embedded model
    python tools/benchmarks/throughput.py --arch ViT-B-16 --pictures 8            # that shape with random weights

The command runs on N and on 2N copies of a picture; the difference of the two times is that of N pictures, reading,
drawing and writing included, without start-up and words.  W processes have cores / W threads each.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import open_clip
import torch
from methods import publish
from predict import processor

from ovseg.compat.checkpoint import save_safetensors
from ovseg.progress import track

ROOT = Path(__file__).resolve().parents[2]
MILLION = 1_000_000


def copies(picture: Path, count: int, folder: Path) -> Path:
    """A folder of so many links to one picture."""
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:05d}{picture.suffix}").symlink_to(picture.resolve())
    return folder


def spent(pictures: Path, out: Path, processes: int, options: list[str]) -> float:
    """Seconds of one run of the command.

    Raises:
        RuntimeError: it failed, or a picture has no result.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *launcher, "-m", "ovseg.cli", "predict", str(pictures), "-o", str(out), *options]
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    wanted, done_count = len(list(pictures.iterdir())), len(list(out.glob("*.json")))
    if done.returncode or wanted != done_count:
        raise RuntimeError(
            f"{done_count} of {wanted} pictures done, exit code {done.returncode}: {done.stderr[-1000:]}"
        )
    return time.perf_counter() - start


def measure(picture: Path, count: int, processes: list[int], runs: int, options: list[str]) -> list[dict]:
    """One row per number of processes; they take turns."""
    times = {number: [] for number in processes}
    for run in track(range(runs), "runs"):
        for number in processes:
            with tempfile.TemporaryDirectory() as folder:
                few, many = (copies(picture, n, Path(folder, str(n))) for n in (count, 2 * count))
                first, second = (
                    spent(pictures, Path(folder, f"out_{run}_{i}"), number, options)
                    for i, pictures in enumerate((few, many))
                )
            times[number].append((second - first) / count)
    return [
        {
            "processes": number,
            "pictures per second": 1 / statistics.median(each),
            "spread": sorted((1 / max(each), 1 / min(each))),
            "days for a million": MILLION * statistics.median(each) / 86400,
        }
        for number, each in times.items()
    ]


def markdown(report: dict) -> str:
    lines = [
        f"`ovseg predict`, {report['weights']}, {report['options']}, copies of {report['picture']}; "
        f"{report['machine']}, {report['runs']} runs of {report['pictures']} and {2 * report['pictures']} pictures, "
        f"torch {report['torch']}.",
        "",
        "| processes | pictures per second | least – most | one million pictures |",
        "|---|---|---|---|",
    ]
    for row in report["rows"]:
        low, high = row["spread"]
        lines.append(
            f"| {row['processes']} | {row['pictures per second']:.2f} | {low:.2f} – {high:.2f} | "
            f"{row['days for a million']:.1f} days |"
        )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, default=ROOT / "demo/photo.jpg")
    parser.add_argument("--pictures", type=int, default=20, help="N")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--method", default="maskclip")
    parser.add_argument("--classes", default="cat, sofa, floor, wall, window", help="the words")
    parser.add_argument(
        "--arch", help="random weights of this shape (open_clip's names) in place of the embedded model"
    )
    parser.add_argument("--out", type=Path, help="folder for throughput.md and .json; only printed unless given")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    args = parser.parse_args()
    options = ["-m", args.method, "-c", args.classes, "--templates", "name"]
    report = {"weights": "the embedded model", "options": " ".join(options[:2]), "picture": args.picture.name}
    report |= {"machine": processor(), "runs": args.runs, "pictures": args.pictures, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        if args.arch:
            report["weights"] = f"{args.arch} with random weights"
            weights = Path(folder, "random.safetensors")
            save_safetensors(weights, open_clip.create_model(args.arch, pretrained=None).state_dict())
            options += ["--weights", str(weights), "--quick-gelu"]
        report["rows"] = measure(args.picture, args.pictures, args.processes, args.runs, options)
    publish("throughput", report, markdown(report), args.out, args.json)


if __name__ == "__main__":
    main()
