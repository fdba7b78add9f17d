"""What a training run is kept for, as one file that prediction reads.

    ovseg export CONFIG CHECKPOINT OUT [--half] [--cfg-options KEY=VALUE …]

CAT-Seg         the tuned CLIP and the aggregation: ``ovseg predict photo.jpg -m catseg --weights OUT -c …``
PixelCLIP       the tuned CLIP as plain weights: ``weights=OUT``
CLIPSelf, RegionCLIP's pretraining   the tuned CLIP likewise
CLIP-DINOiser   its two convolutions in the authors' format: ``dense=dict(type="CLIPDINOiser", checkpoint=OUT)``
"""

import argparse
from pathlib import Path

from ovseg.compat.extras import require
from ovseg.printable import say


def main(argv=None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="ovseg export", description=__doc__, formatter_class=raw)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--half", action="store_true", help="in half precision: half the size, rounded")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="strict overrides")
    args = parser.parse_args(argv)
    require("mm", "ovseg export")
    from ovseg.compat.checkpoint import read_checkpoint_with_meta, save_safetensors
    from ovseg.engine.checkpoints import load_weights
    from ovseg.engine.config import apply_overrides, load_config
    from ovseg.registry import MODELS

    try:
        cfg = load_config(args.config)
        apply_overrides(cfg, args.cfg_options)
        model = MODELS.build(cfg.model)
        if not hasattr(model, "export"):
            raise ValueError(f"{cfg.model.type} has nothing to export: predict with its config and checkpoint.")
        load_weights(args.checkpoint, model)
        model.export(args.out)
        if args.half:
            state, notes = read_checkpoint_with_meta(args.out)
            state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
            save_safetensors(args.out, state, notes)
    except (ValueError, KeyError, FileNotFoundError) as error:
        say(f"ovseg export: {error.args[0] if isinstance(error, KeyError) else error}", error=True)
        return 2
    say(args.out)
    return 0
