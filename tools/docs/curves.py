"""Loss and validation scores of a run of tools/train.py as one picture.

python tools/docs/curves.py work_dirs/catseg_tiny_scenes docs/images/curves/catseg_tiny_scenes.png
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

SHOWN = (("mIoU", "black"), ("mIoU_seen", "tab:green"), ("mIoU_unseen", "tab:orange"))
SHOWN += (("boxes/AP50", "black"), ("boxes/AP50_base", "tab:green"), ("boxes/AP50_novel", "tab:orange"))


def points(run: Path) -> list[dict]:
    """What the log of a run holds, line by line; of a resumed run all parts in order.

    Raises:
        FileNotFoundError: no log.
    """
    logs = sorted(run.glob("*/vis_data/scalars.json"))
    if not logs:
        raise FileNotFoundError(f"{run} holds no log (*/vis_data/scalars.json): give the work dir of a run.")
    return [json.loads(line) for log in logs for line in log.read_text(encoding="utf-8").splitlines()]


def draw(run: Path, out: Path):
    rows = points(run)
    figure, axis = pyplot.subplots(figsize=(6, 3.2), dpi=100)
    train = [(row["iter"], row["loss"]) for row in rows if "loss" in row]
    axis.plot(*zip(*train, strict=True), color="tab:blue", label="loss")
    axis.set_xlabel("iterations")
    axis.set_ylabel("loss")
    axis.set_yscale("log")
    scores = axis.twinx()
    for name, color in SHOWN:
        curve = [(row["step"], row[name]) for row in rows if name in row]
        if curve:
            scores.plot(*zip(*curve, strict=True), "o--", color=color, label=name)
    scores.set_ylabel("validation, %")
    scores.set_ylim(bottom=0)
    figure.legend(loc="upper right", bbox_to_anchor=(0.88, 0.9), fontsize=8)
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args(argv)
    draw(args.run, args.out)


if __name__ == "__main__":
    main()
