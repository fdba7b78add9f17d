"""The options of MMEngine's own tools that ``train`` and ``test`` have: overrides of the config, several processes."""

import argparse
import os
from collections.abc import Sequence


def parse_run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Add ``--cfg-options``, ``--launcher`` and ``--local-rank`` to a parser and parse a command line.

    LOCAL_RANK becomes the number of the process unless the launcher has set it.
    """
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="strict overrides of the config"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args
