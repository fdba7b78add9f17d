"""The table of an exported model: photographs by name, ``coco_mini`` and drawn scenes by pixel, chance beside.

    python tools/embedded/evaluate.py work_dirs/embedded/embedded --data work_dirs/embedded/data --out docs/tables

The folder is read by open_clip itself.  Photographs are read whole at stride 32, the others at every ``--shorter`` and
``--stride``.  Names stand in CLIP's 80 templates; ``--bare`` takes them as they are.
"""

import argparse
import json
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from cnn import DenseCNN
from measure import Model, coco, scenes, top1
from photos import names as photo_names
from words import load_words

from ovseg.text.templates import TEMPLATES


def read_model(folder: Path, templates: tuple[str, ...]) -> Model:
    """An open_clip folder as the two functions that ``measure`` asks for."""
    clips = {s: open_clip.create_model(f"local-dir:{folder}").eval() for s in (16, 32)}
    towers = {stride: DenseCNN(clip.visual, stride) for stride, clip in clips.items()}
    tokenizer = open_clip.SimpleTokenizer(context_length=clips[32].context_length)

    def dense(images, stride):
        return towers[stride](images)[1].permute(0, 2, 3, 1)

    @torch.inference_mode()
    def words(names):
        rows = []
        for name in names:
            ids = tokenizer([template.format(name) for template in templates])
            rows.append(F.normalize(clips[32].encode_text(ids), dim=-1).mean(0))
        return F.normalize(torch.stack(rows), dim=-1)

    return Model(dense, words)


def markdown(report: dict) -> str:
    lines = [f"Steps: {report['steps']}; templates: {report['templates']}.", ""]
    lines += ["| photographs, whole picture | side | top-1 | chance |", "|---|---|---|---|"]
    for row in report["top1"]:
        lines += [f"| {row['names']} names | {row['side']} | {row['top1']:.1f} | {100 / row['names']:.2f} |"]
    lines += ["", "mIoU (things or objects / stuff):", "", "| pictures | read at | v20 | full |", "|---|---|---|---|"]
    for row in report["pixels"]:
        cells = []
        for protocol in ("v20", "full"):
            m = row[protocol]
            cells.append(f"{m['mIoU']:.1f} ({m.get('things', m.get('objects')):.1f} / {m['stuff']:.1f})")
        lines.append(f"| {row['pictures']} | {row['read']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=Path("work_dirs/embedded/data"))
    parser.add_argument("--out", type=Path, default=Path("work_dirs/embedded"))
    parser.add_argument("--sides", type=int, nargs="+", default=[160])
    parser.add_argument("--shorter", type=int, nargs="+", default=[448])
    parser.add_argument("--stride", type=int, nargs="+", default=[16])
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--scene-side", type=int, default=320)
    parser.add_argument("--step", type=int, default=2, help="pixels of coco_mini are compared at every n-th")
    parser.add_argument("--flip", action="store_true", help="mean of the picture and its mirror image")
    parser.add_argument("--bare", action="store_true", help="names without templates")
    parser.add_argument("--hold-out", type=int, default=0, help="report every n-th name of coco_mini apart")
    args = parser.parse_args()
    templates = TEMPLATES["name" if args.bare else "imagenet_80"]
    model, words = read_model(args.folder, templates), load_words(args.hold_out)
    meta = json.loads((args.folder / "open_clip_config.json").read_text())
    report = {"steps": meta.get("steps"), "templates": len(templates), "top1": [], "pixels": []}
    for kind in ("objects64", "scenes32"):
        first = [names[0] for names in photo_names(kind).values()]
        for side in args.sides:
            figure = top1(model, args.data, kind, first, side)
            report["top1"].append({"names": len(first), "side": side, "top1": figure})
            print(report["top1"][-1], flush=True)
    names = [group[0] for group in words.coco]
    for stride in args.stride:
        for shorter in args.shorter:
            row = coco(model, names, words.held["coco"], shorter, stride, args.flip, args.step)
            read = f"{shorter} px, stride {stride}{', mirrored too' * args.flip}"
            if not any(r["read"] == "chance" for r in report["pixels"]):
                chance = {protocol: row[f"chance {protocol}"] for protocol in ("v20", "full")}
                report["pixels"].append({"pictures": "coco_mini", "read": "chance"} | chance)
            report["pixels"].append({"pictures": "coco_mini", "read": read} | row)
            print(report["pixels"][-1], flush=True)
    for styles in ("seen", "unseen"):
        row = scenes(model, [g[0] for g in words.scenes], args.scenes, styles, args.scene_side, flip=args.flip)
        report["pixels"].append({"pictures": f"scenes, {styles}", "read": f"{args.scene_side} px, stride 16"} | row)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "embedded.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "embedded.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
