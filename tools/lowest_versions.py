"""Print the lower bounds of the core's dependencies as a constraint file of pip.

    python tools/lowest_versions.py > lowest.txt
    python3.10 -m venv lowest && lowest/bin/pip install -c lowest.txt . pytest

An environment made with it holds the oldest versions that pyproject.toml promises to work.  Needs Python 3.11.
"""

import sys
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(requirement: str) -> str:
    """``name==version`` of the lower bound of one requirement, its marker kept.

    Raises:
        ValueError: a requirement that has no lower bound, or several.
    """
    parsed = Requirement(requirement)
    bounds = [each.version for each in parsed.specifier if each.operator in (">=", "==", "~=")]
    if len(bounds) != 1:
        raise ValueError(f"{requirement!r} in pyproject.toml needs one lower bound, such as {parsed.name}>=1.0.")
    marker = f" ; {parsed.marker}" if parsed.marker else ""
    return f"{parsed.name}=={bounds[0]}{marker}"


def constraints(pyproject: Path = PYPROJECT) -> list[str]:
    """One line for each dependency of the core."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [lowest(requirement) for requirement in project["dependencies"]]


if __name__ == "__main__":
    try:
        print(*constraints(), sep="\n")
    except ValueError as error:
        sys.exit(str(error))
