"""``ovseg configs``."""

import ast
from pathlib import Path

from ovseg.compat.config_scope import config_files
from ovseg.printable import say


def configs():
    """List the configs of the package, for `ovseg train`, `ovseg test` and _base_ = "ovseg::FOLDER/NAME.py"."""
    folder = None
    for name, path in config_files().items():
        if path.parent.name != folder:
            folder = path.parent.name
            say(f"{folder}/")
        say(f"  {name:40} {summary(path)}".rstrip())


def summary(path: Path) -> str:
    """The first line of a config's docstring."""
    lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()
    return lines[0] if lines else ""
