"""Turn a training state into the files that ship: one for each picture tower, one for the text tower they share.

    python tools/embedded/export.py work_dirs/embedded/cnn/last.pt configs/embedded/embedded.json --out OUT

Writes ``embedded.safetensors`` (picture tower, half precision), ``embedded-text.safetensors`` (text tower: half
precision, the token table's codes as 8-bit rows with a scale each), and ``embedded/``, the same model as open_clip
reads it from a folder: ``open_clip.create_model("local-dir:work_dirs/embedded/embedded")``.
"""

import argparse
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from teachers import MEAN, STD
from torch import Tensor
from train import Learner

CARD = {
    "name": "embedded",
    "license": "Apache-2.0 for the code; see terms",
    "teachers": {
        "efficientnet-lite0": "Apache-2.0, trained on ImageNet-1k; start of the picture tower",
        "efficientnet-lite2": "Apache-2.0, trained on ImageNet-1k; soft labels",
        "all-MiniLM-L6-v2": "Apache-2.0 upstream; targets of the text tower",
        "WordNet 3.1": "WordNet license; hypernyms",
    },
    "pictures": {
        "Tiny ImageNet": "subset of ImageNet: non-commercial research and education",
        "CIFAR-100": "published without a license",
        "COCO 2017": "100 training photographs, annotations CC BY 4.0, photographs under their owners' licenses",
        "drawn scenes": "see docs/tiny_clip.md",
    },
    "notice": "ovseg's embedded model: small, trained on few photographs. For real work name larger weights.",
}


def quantize(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (V, r) → int8 rows and a half-precision scale each (V,): row ≈ scale · int8."""
    scale = (codes.abs().amax(1).clamp_min(1e-6) / 127).half()
    return (codes / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def shipped_text(model: Learner) -> dict[str, Tensor]:
    state = {name: value.half() for name, value in model.text.state_dict().items() if "token_embedding" not in name}
    table = model.text.token_embedding
    state["token_codes"], state["token_scales"] = quantize(table.codes.weight.detach())
    return {name: value.contiguous() for name, value in (state | {"token_basis": table.basis.detach().half()}).items()}


def picture_state(model: Learner) -> dict[str, Tensor]:
    """The picture tower under open_clip's names."""
    state = {f"visual.trunk.{name}": value for name, value in model.trunk.unfold().items()}
    return state | {"visual.head.proj.weight": model.proj.weight.detach(), "logit_scale": model.logit_scale.detach()}


def rounded(model: Learner):
    """Give the text tower the values that ``shipped_text`` keeps."""
    codes = model.text.token_embedding.codes.weight
    whole, scale = quantize(codes.detach())
    codes.data = whole.float() * scale.float()[:, None]


def write(path: Path, state: dict[str, Tensor], card: dict) -> str:
    state = {name: value.contiguous() for name, value in state.items()}
    save_file(state, path, {"ovseg": json.dumps(card)})
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("--text", type=Path, help="state of train_text.py, for a picture tower trained without")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/embedded"))
    args = parser.parse_args()
    config, saved = json.loads(args.config.read_text()), torch.load(args.state, weights_only=True)
    model = Learner(config)
    model.load_state_dict(saved["mean"])
    if args.text:
        model.text.load_state_dict(torch.load(args.text, weights_only=True)["model"])
    rounded(model)
    folder = args.out / "embedded"
    folder.mkdir(parents=True, exist_ok=True)
    card = CARD | {"config": config["model"], "training": {"steps": saved["step"], "seed": config["seed"]}}
    half = {k: v.half() if v.is_floating_point() else v for k, v in picture_state(model).items()}
    for name, state in (("embedded", half), ("embedded-text", shipped_text(model))):
        path = args.out / f"{name}.safetensors"
        print(f"{path}: SHA-256 {write(path, state, card)}, {path.stat().st_size / 1e6:.1f} MB")
    text = {f"text.{name}": value.half().float() for name, value in model.text.merged_state().items()}
    whole = {k: v.float() if v.is_floating_point() else v for k, v in half.items()} | text
    write(folder / "open_clip_model.safetensors", whole, card)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    described = {
        "model_cfg": config["model"] | {"custom_text": True},
        "preprocess_cfg": preprocess,
        "steps": saved["step"],
    }
    (folder / "open_clip_config.json").write_text(json.dumps(described, indent=2) + "\n")


if __name__ == "__main__":
    main()
