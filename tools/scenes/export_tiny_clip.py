"""Turn a checkpoint of ``train_tiny_clip.py`` into the file that ships with the package.

    python tools/scenes/export_tiny_clip.py work_dirs/tiny_clip/last.pt configs/tiny_clip/tiny_clip_scenes.json

Half precision, only the token rows that were trained (the loader puts them back at their ids), and a card:
architecture,
words it knows, notice, prediction settings that suit it.
"""

import argparse
import json
from pathlib import Path

import torch

from ovseg.compat.checkpoint import save_safetensors
from ovseg.datasets.scenes import spellings
from ovseg.towers.weights import TINY

NOTICE = (
    "ovseg-tiny-scenes is the embedded demo model: made of drawn scenes, it knows some hundred words and "
    "no photographs. "
    "For real pictures name real weights: --weights openai (Python: weights='openai')."
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, default=TINY)
    args = parser.parse_args()
    trained = torch.load(args.checkpoint, weights_only=True)
    config = json.loads(args.config.read_text(encoding="utf-8"))
    state = {key: value.half() for key, value in trained["model"].items() if not key.endswith("attn_mask")}
    state["token_rows"] = torch.tensor(trained["ids"], dtype=torch.int32)
    card = {
        "words": sorted({name.casefold() for names in spellings() for name in names}),
        "notice": NOTICE,
        "protocol": {
            "short_side": 160,
            "size": None,
            "window": 64,
            "stride": 32,
            "normalization": "weights",
            "refine_image": "original",
        },
    }
    own = {"name": "ovseg-tiny-scenes", "config": config["model"], "quick_gelu": False, "card": card}
    own |= {"training": {"steps": trained["step"], "seed": config["seed"]}}
    save_safetensors(args.out, state, {"ovseg": json.dumps(own)})
    numbers = sum(value.numel() for value in state.values())
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MB, {numbers / 1e6:.2f} M numbers")


if __name__ == "__main__":
    main()
