"""A training state small enough to travel: what was trained, half precision, without the optimizer's moments.

    python tools/embedded/compact.py work_dirs/embedded/cnn/last.pt configs/embedded/embedded_cnn.safetensors

Training goes on from it on any machine, by the same command, with a short warm-up.  What the teachers' packages hold is
left out, and of the picture tower's state the text tower, as long as that has its own.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--joint", action="store_true", help="keep the text tower of a picture tower's state")
    args = parser.parse_args()
    saved = torch.load(args.state, weights_only=True)
    values = saved["mean"] if "mean" in saved else saved["model"]
    left_out = ("trunk.trunk.",) if args.joint else ("trunk.trunk.", "text.")
    kept = {n: v.half().contiguous() for n, v in values.items() if v.is_floating_point() and not n.startswith(left_out)}
    save_file(kept | {"step": torch.tensor(saved["step"])}, args.out)
    print(f"{args.out}: step {saved['step']}, {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
