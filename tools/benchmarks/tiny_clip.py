"""What the embedded tiny CLIP can do, beside chance, majority and the patch-grid oracle.

    python tools/benchmarks/tiny_clip.py --scenes 300 --out docs/tables

Retrieval between held-out scenes and captions, top-1 of single objects, and mIoU of every extractor on held-out scenes
in
seen and unseen art styles, protocols v20 (the present names and random others up to 20) and full (all names).  The same
mIoU comes from tools/test.py with the *_tiny configs.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ovseg.apis.load import load
from ovseg.apis.methods import list_methods
from ovseg.datasets.scenes import SceneComposer, candidates, caption, object_names, stuff_names
from ovseg.files import write_json, write_text
from ovseg.progress import track
from ovseg.results.provenance import tower_weights
from ovseg.text.encoder import TextEncoder
from ovseg.towers import load_tower

OBJECTS, TOTAL = len(object_names()), len(object_names()) + len(stuff_names())
FIRST_SEED = 1_000_000
FINE = dict(type="PAMR", dilations=(1, 2, 4))  # pictures this small: neighbors must be near


class Confusion:
    """Pixel counts by class; ``means`` are the mIoU over all, object and stuff classes that occur, in percent."""

    def __init__(self, total: int = TOTAL, objects: int = OBJECTS):
        self.objects = objects
        self.both, self.label, self.predicted = (np.zeros(total) for _ in range(3))

    def add(self, label: np.ndarray, predicted: np.ndarray):
        known = label < len(self.label)  # 255: no label
        label, predicted = label[known], predicted[known]
        self.both += np.bincount(label[label == predicted], minlength=len(self.label))
        self.label += np.bincount(label, minlength=len(self.label))
        self.predicted += np.bincount(predicted, minlength=len(self.label))

    def means(self) -> dict[str, float]:
        union = self.label + self.predicted - self.both
        iou = np.where(union > 0, 100 * self.both / np.maximum(union, 1), np.nan)
        parts = {"mIoU": iou, "objects": iou[: self.objects], "stuff": iou[self.objects :]}
        scores = {name: float(np.nanmean(values)) for name, values in parts.items()}
        return scores | {"aAcc": float(100 * self.both.sum() / self.label.sum())}


def patch_majority(labels: np.ndarray, patch: int, total: int = TOTAL) -> np.ndarray:
    """The oracle of the patch grid: every patch gets the label most of its labeled pixels have."""
    out = np.empty_like(labels)
    for y in range(0, labels.shape[0], patch):
        for x in range(0, labels.shape[1], patch):
            cell = labels[y : y + patch, x : x + patch]
            out[y : y + patch, x : x + patch] = np.bincount(cell[cell < total], minlength=1).argmax()
    return out


def baselines(scenes, allowed, patch: int) -> dict[str, Confusion]:
    """Chance (a random candidate per patch), majority (the commonest class everywhere), oracle of the patch grid."""
    rows = {name: Confusion() for name in ("chance per patch", "majority class", "patch-grid oracle")}
    commonest = np.bincount(np.concatenate([s.labels.ravel() for s in scenes]), minlength=TOTAL).argmax()
    rng = np.random.default_rng(0)
    for scene, names in zip(scenes, allowed, strict=True):
        grid = tuple(side // patch for side in scene.labels.shape)
        rows["chance per patch"].add(scene.labels, rng.choice(names, grid).repeat(patch, 0).repeat(patch, 1))
        rows["majority class"].add(scene.labels, np.full_like(scene.labels, commonest))
        rows["patch-grid oracle"].add(scene.labels, patch_majority(scene.labels, patch))
    return rows


def segmentation(tower, styles: str, count: int, methods: list[str] | None = None) -> dict[str, dict[str, dict]]:
    """protocol → row → scores."""
    composer = SceneComposer(styles=styles)
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    scenes = [composer(seed) for seed in seeds]
    result = {}
    models = {name: load(name, tower=tower, cache=False) for name in list_methods(ready=True)}
    models["ensemble + PAMR (1, 2, 4)"] = load("ensemble", tower=tower, cache=False, refine=FINE)
    models = {name: model for name, model in models.items() if methods is None or name in methods}
    text = {name: model.encoder([*object_names(), *stuff_names()]) for name, model in models.items()}
    counts = {p: {name: Confusion() for name in models} for p in ("v20", "full")}
    allowed = {p: [candidates(s.labels, p, seed) for s, seed in zip(scenes, seeds, strict=True)] for p in counts}
    for name, model in models.items():
        for i, scene in enumerate(track(scenes, f"{name}, {styles} styles")):
            encoded = model.pipeline.encode(scene.image)
            for protocol, rows in counts.items():
                names = allowed[protocol][i]
                labels, _, _ = model.pipeline.decode(encoded, text[name][names], names)
                rows[name].add(scene.labels, labels.numpy())
    for protocol, rows in counts.items():
        rows = baselines(scenes, allowed[protocol], tower.stride) | rows
        result[protocol] = {name: confusion.means() for name, confusion in rows.items()}
    return result


@torch.inference_mode()
def recognition(tower, encoder, styles: str, count: int) -> dict[str, float]:
    """Retrieval R@1 between scenes of 2 or 3 objects and their captions, top-1 of single objects; in percent."""
    composer = SceneComposer(tower.image_size[0], (2, 3), (18, 40), styles, inside=0.8)
    scenes = [composer([5, i]) for i in range(count)]
    texts = [caption(np.random.default_rng([5, i]), s.visible(), synonym=0.0) for i, s in enumerate(scenes)]
    tokens = encoder.tokenizer(texts)
    captions = F.normalize(tower.clip.encode_text(tokens), dim=-1)
    scores = embed(tower, scenes) @ captions.T
    right = torch.arange(count)
    composer = SceneComposer(tower.image_size[0], (1, 1), (20, 0.9 * tower.image_size[0]), styles)
    single = [composer([6, i], [i % OBJECTS]) for i in range(4 * OBJECTS)]
    words = encoder(object_names())
    top1 = (embed(tower, single) @ words.T).argmax(1) == torch.arange(4 * OBJECTS) % OBJECTS
    return {
        "image to text R@1": float(100 * (scores.argmax(1) == right).float().mean()),
        "text to image R@1": float(100 * (scores.argmax(0) == right).float().mean()),
        f"single object top-1 of {OBJECTS}": float(100 * top1.float().mean()),
    }


@torch.inference_mode()
def photographs(tower, encoder) -> dict:
    """coco_mini: chance, majority and oracle of the patch grid, and retrieval between pictures and their names.

    The mIoU of the extractors on it comes from tools/test.py.
    """
    from ovseg.engine.benchmarks import benchmarks
    from ovseg.registry import DATASETS

    config, _ = benchmarks()["coco_mini"]
    dataset = DATASETS.build(config)
    names, things = dataset.metainfo["classes"], 80
    rows = {n: Confusion(len(names), things) for n in ("chance per patch", "majority class", "patch-grid oracle")}
    pictures = [dataset[i] for i in range(len(dataset))]
    labels = [p["data_samples"].gt_sem_seg.data[0].numpy() for p in pictures]
    commonest = np.bincount(np.concatenate([x[x < len(names)] for x in labels])).argmax()
    rng = np.random.default_rng(0)
    short, texts, pixels = tower.card.protocol["short_side"], [], []
    for picture, label in zip(pictures, labels, strict=True):
        patch = round(tower.stride * min(label.shape) / short)
        grid = [-(-side // patch) for side in label.shape]
        chance = rng.integers(len(names), size=grid).repeat(patch, 0).repeat(patch, 1)
        rows["chance per patch"].add(label, chance[: label.shape[0], : label.shape[1]])
        rows["majority class"].add(label, np.full_like(label, commonest))
        rows["patch-grid oracle"].add(label, patch_majority(label, patch, len(names)))
        share = np.bincount(label[label < len(names)], minlength=len(names)) / label.size
        texts.append("a photo of " + ", ".join(names[i] for i in np.argsort(-share)[:4] if share[i] > 0))
        size = tower.image_size
        pixels.append(F.interpolate(picture["inputs"].flip(0)[None] / 255, size, mode="area"))
    images = F.normalize(tower(tower.normalize(torch.cat(pixels)))[0], dim=-1)
    scores = images @ F.normalize(tower.clip.encode_text(encoder.tokenizer(texts)), dim=-1).T
    right = torch.arange(len(texts))
    return {
        "pictures": len(texts),
        "image to text R@1": float(100 * (scores.argmax(1) == right).float().mean()),
        "text to image R@1": float(100 * (scores.argmax(0) == right).float().mean()),
        "rows": {name: confusion.means() for name, confusion in rows.items()},
    }


def embed(tower, scenes) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2) / 255
    return F.normalize(torch.cat([tower(part)[0] for part in tower.normalize(pixels).split(64)]), dim=-1)


def markdown(report: dict) -> str:
    settings = "80 templates (GEM: one), short side 160, windows of 64 px, stride 32"
    lines = [f"{report['scenes']} scenes, weights {report['weights']}, {settings}.", ""]
    lines += ["| styles | " + " | ".join(next(iter(report["recognition"].values()))) + " |", "|---|---|---|---|"]
    lines += [
        f"| {s} | " + " | ".join(f"{v:.1f}" for v in row.values()) + " |" for s, row in report["recognition"].items()
    ]
    columns = [(s, p) for s in report["segmentation"] for p in ("v20", "full")]
    lines += ["", "mIoU (objects / stuff):", "", "| | " + " | ".join(f"{s}, {p}" for s, p in columns) + " |"]
    lines += ["|---|" + "---|" * len(columns)]
    for name in report["segmentation"]["seen"]["v20"]:
        cells = [report["segmentation"][s][p][name] for s, p in columns]
        cells_text = " | ".join(f"{c['mIoU']:.1f} ({c['objects']:.1f} / {c['stuff']:.1f})" for c in cells)
        lines.append(f"| {name} | {cells_text} |")
    photos = report["photographs"]
    lines += [
        "",
        f"coco_mini, {photos['pictures']} photographs, 133 names; R@1 between pictures and their commonest names: ",
    ]
    lines[-1] += f"{photos['image to text R@1']:.1f} image to text, {photos['text to image R@1']:.1f} text to image."
    lines += ["", "| | mIoU (things / stuff) |", "|---|---|"]
    for name, c in photos["rows"].items():
        lines.append(f"| {name} | {c['mIoU']:.1f} ({c['objects']:.1f} / {c['stuff']:.1f}) |")
    return "\n".join(lines) + "\n"


def measure(tower, encoder, count: int) -> dict:
    return {
        "recognition": {s: recognition(tower, encoder, s, count) for s in ("seen", "unseen")},
        "segmentation": {s: segmentation(tower, s, count) for s in ("seen", "unseen")},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="tiny")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--methods", nargs="+", help="measure only these again and keep the rest of the report")
    parser.add_argument("--out", type=Path, default=Path("docs/tables"))
    args = parser.parse_args()
    tower = load_tower(args.weights)
    encoder = TextEncoder(tower)
    report = {"scenes": args.scenes, "weights": str(tower_weights(tower.card))}
    old = args.out / "tiny_clip.json"
    if args.methods:
        previous = json.loads(old.read_text()) if old.exists() else {}
        if any(previous.get(key) != report[key] for key in report):
            parser.error(f"--methods adds to a report of the same weights and scenes, and {old} is none.")
        report = previous
        for styles, parts in report["segmentation"].items():
            for protocol, rows in segmentation(tower, styles, args.scenes, args.methods).items():
                parts[protocol] |= rows
    else:
        report |= measure(tower, encoder, args.scenes)
    report["photographs"] = photographs(tower, encoder)
    write_json(args.out / "tiny_clip.json", report)
    write_text(args.out / "tiny_clip.md", markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
