"""Segment one picture, in MMSegmentation's manner.

python demo/image_demo.py demo/scene.png naclip --classes bus owl tree grass sky
python demo/image_demo.py demo/scene.png configs/naclip/naclip_vitb16_openai.py openai --classes bus owl tree grass sky
"""

import argparse
from pathlib import Path

import ovseg


def read_config(path: str) -> tuple[dict, str | None, dict]:
    """Method, weights and all other options of ``ovseg.load`` that a config of MMSegmentation's kind describes.

    Raises:
        ValueError: a config of another model.
    """
    from ovseg.engine.config import load_config

    model = load_config(path).model
    if model.type.removeprefix("ovseg.") != "OpenVocabSegmentor":
        raise ValueError(f"{path} describes a {model.type}; this demo takes methods and configs of OpenVocabSegmentor.")
    options = {name: model[name] for name in ("scorer", "arch", "quick_gelu") if model.get(name) is not None}
    return dict(model.dense), model.get("weights"), options | dict(model.get("protocol") or {})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("model", help="a config file, or a method: see `ovseg methods`")
    parser.add_argument("weights", nargs="?", help="tiny (embedded), openai, ViT-L-14/openai, a file …")
    parser.add_argument("--classes", nargs="+", required=True, help="words to look for")
    parser.add_argument("--out-dir", type=Path, default=Path("out"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--show", action="store_true", help="open a window")
    args = parser.parse_args()
    method, weights, settings = args.model, args.weights, {}
    if args.model.endswith(".py"):
        method, own, settings = read_config(args.model)
        weights = weights or own
    model = ovseg.load(method, weights, args.classes, device=args.device, **settings)
    result = model(args.image)
    if args.show:
        result.show()
    print(*result.save(args.out_dir).values(), sep="\n")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise SystemExit(f"image_demo: {error.args[0] if isinstance(error, KeyError) else error}") from None
