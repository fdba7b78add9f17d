"""Measure configs on benchmarks: ``ovseg test``."""

import sys

from ovseg.cli.test import main

if __name__ == "__main__":
    sys.exit(main())
