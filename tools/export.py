"""Export what was trained: ``ovseg export``."""

import sys

from ovseg.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
