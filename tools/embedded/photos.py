"""Small photographs and what the picture teacher says of them, decoded once into arrays that can be memory-mapped.

    python tools/embedded/photos.py --out work_dirs/embedded/data

Writes ``{objects64,scenes32}_{train,val}.npy`` ((n, S, S, 3) uint8 RGB), ``…_labels.npy`` ((n,) int64, index into
``names.csv``'s rows of that set) and ``teacher.npy`` ((n, 1000) float16: the teacher's logits of the first photographs
of every class of ``objects64_train``, NaN where it was not asked).
"""

import argparse
import csv
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from teachers import MEAN, STD, efficientnet_lite

from ovseg.datasets.mini import data_folder

SIDES = {"objects64": 64, "scenes32": 32}


def names(kind: str) -> dict[str, list[str]]:
    """Folder → names, the usual one first, in label order; ``kind``: ``objects64`` or ``scenes32``."""
    with (data_folder("photos64") / "names.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == kind]
    return {row["folder"]: [name.strip() for name in row["names"].split(",")] for row in rows}


def decode(kind: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, S, S, 3) uint8 and labels (n,)."""
    index = {folder: i for i, folder in enumerate(names(kind))}
    pictures, labels = [], []
    with tarfile.open(data_folder("photos64") / f"{kind}_{split}.tar") as archive:
        for member in archive:
            if member.isfile():
                picture = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
                pictures.append(np.asarray(picture))
                labels.append(index[Path(member.name).parent.name])
    return np.stack(pictures), np.array(labels)


def enlarge(pictures: np.ndarray, side: int) -> torch.Tensor:
    """(n, S, S, 3) uint8 → (n, 3, side, side) float in [0, 1], bicubic."""
    x = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(x, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)


@torch.inference_mode()
def ask(teacher: torch.nn.Module, pictures: np.ndarray, side: int) -> np.ndarray:
    """The teacher's logits (n, 1000) of photographs enlarged to ``side``."""
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        x = ((enlarge(pictures, side) - mean) / std).contiguous(memory_format=torch.channels_last)
        return teacher(x).float().numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/embedded/data"))
    parser.add_argument("--teacher", default="lite2")
    parser.add_argument("--side", type=int, default=192, help="side of the teacher's pictures")
    parser.add_argument("--asked", type=int, default=80, help="photographs a class that the teacher is asked about")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for kind in SIDES:
        for split in ("train", "val"):
            if (args.out / f"{kind}_{split}_labels.npy").exists():
                continue
            pictures, labels = decode(kind, split)
            np.save(args.out / f"{kind}_{split}.npy", pictures)
            np.save(args.out / f"{kind}_{split}_labels.npy", labels)
            print(kind, split, len(labels), flush=True)
    pictures = np.load(args.out / "objects64_train.npy", mmap_mode="r")
    labels = np.load(args.out / "objects64_train_labels.npy")
    chosen = np.stack([np.flatnonzero(labels == c)[: args.asked] for c in np.unique(labels)], 1).flatten()
    path = args.out / "teacher.npy"
    logits = np.load(path) if path.exists() else np.full((len(labels), 1000), np.nan, np.float16)
    chosen = chosen[np.isnan(logits[chosen, 0])]
    teacher = efficientnet_lite(args.teacher).to(memory_format=torch.channels_last)
    for start in range(0, len(chosen), 64):
        part = chosen[start : start + 64]
        logits[part] = ask(teacher, pictures[part], args.side)
        if start % 1024 == 0 or start + 64 >= len(chosen):
            np.save(args.out / "part.npy", logits)
            os.replace(args.out / "part.npy", path)
            print(f"teacher: {start + len(part)} of {len(chosen)}", flush=True)


if __name__ == "__main__":
    main()
