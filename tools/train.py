"""Train a config: ``ovseg train``."""

import sys

from ovseg.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
