"""Train a config: a file, or the name of a config of the package.

    ovseg train catseg_tiny_scenes
    ovseg train CONFIG --work-dir work_dirs/mine --cfg-options train_dataloader.batch_size=8
    ovseg train CONFIG --resume                     # go on from the newest checkpoint of the work dir
    torchrun --nproc_per_node 2 -m ovseg.cli train CONFIG --launcher pytorch

Log, curves and checkpoints go to the work dir (``work_dirs/<config>`` unless given).  An interrupted run loses what
came after its last checkpoint, nothing else: ``--resume`` gives the weights of a run that was never interrupted.
"""

import argparse
import sys
from pathlib import Path

from ovseg.compat.extras import require
from ovseg.printable import say

from .run_options import parse_run


def parse(argv=None):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="ovseg train", description=__doc__, formatter_class=raw)
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/<config>")
    parser.add_argument(
        "--resume", nargs="?", const=True, metavar="CHECKPOINT", help="from the newest checkpoint, or from this one"
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision; needs a GPU")
    return parse_run(parser, argv)


def prepare(args):
    """The checked config of a run.

    Raises:
        FileNotFoundError, KeyError, ValueError: no such config, or something in it that nobody reads or knows.
    """
    import torch

    from ovseg.engine.config import apply_overrides, load_config
    from ovseg.engine.launch import start_processes
    from ovseg.registry import check_components

    cfg = load_config(args.config)
    apply_overrides(cfg, args.cfg_options)
    check_components(cfg, cfg.default_scope)
    if "train_dataloader" not in cfg:
        raise ValueError(
            f"{args.config} has no train_dataloader: it describes a method that is not trained. Measure it with "
            f"ovseg test {args.config}."
        )
    cfg.work_dir = str(args.work_dir or Path("work_dirs") / Path(args.config).stem)
    if args.amp:
        if not torch.cuda.is_available():
            raise ValueError("--amp needs a GPU, and none is visible here. Train without it.")
        cfg.optim_wrapper.type = "AmpOptimWrapper"
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume is True else args.resume
    cfg.launcher = args.launcher
    cfg.pop("benchmarks", None)
    start_processes(cfg)
    return cfg


def main(argv=None) -> int:
    args = parse(argv)
    require("mm", "ovseg train")
    from mmengine.dist import is_main_process

    from ovseg.engine.checkpoints import trained
    from ovseg.engine.trainer import Trainer

    try:
        trainer = Trainer.from_cfg(prepare(args))
        if is_main_process():
            for part, train, total in trained(trainer.bare_model):
                print(f"{part}: {train:,} of {total:,} parameters train")
        trainer.train()
    except (ValueError, KeyError, FileNotFoundError) as error:
        say(f"ovseg train: {error.args[0] if isinstance(error, KeyError) else error}", error=True)
        return 2
    except KeyboardInterrupt:
        print("ovseg train: interrupted; --resume goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0
