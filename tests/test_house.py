"""The rules of the house: which way imports point, how long a file may be, what is never called."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = (
    "spelling files rng progress registry compat "
    "argmax towers dense text score catseg regions phrases refine pictures results predict "
    "segmentors detectors datasets evaluation engine apis cli testing"
).split()
MAY_USE_MM = {"segmentors", "detectors", "datasets", "evaluation", "engine"}
LONGEST = 400
FORBIDDEN = ("weights_only=False", "pickle.load", " eval(", "yaml.load(")


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def room(path: Path, root: Path = ROOT) -> str | None:
    """The top folder or module of a file in ``ovseg/``; None for the package itself and its ``__main__``."""
    top = path.relative_to(root / "ovseg").parts[0].removesuffix(".py")
    return None if top in ("__init__", "__main__") else top


def imports(path: Path, root: Path = ROOT) -> list[tuple[int, str]]:
    """(line, dotted name) of every import in a file, at any depth, relative ones made absolute."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*base, *filter(None, [node.module])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def wrong_way(path: Path, root: Path = ROOT) -> list[str]:
    """Imports of later rooms, as printable lines."""
    here, lines = room(path, root), []
    for line, name in imports(path, root):
        head, _, rest = name.partition(".")
        there = rest.partition(".")[0]
        if here and head == "ovseg" and there in ORDER and ORDER.index(there) > ORDER.index(here):
            lines.append(f"{path.relative_to(root)}:{line}: {here} imports {name}")
    return lines


def test_every_room_has_its_place():
    unknown = {room(path) for path in sources("ovseg")} - {None} - set(ORDER)
    assert not unknown, f"give {unknown} a place in ORDER"


def test_imports_point_one_way():
    found = [line for path in sources("ovseg") for line in wrong_way(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "file, code, wrong",
    [
        ("dense/a.py", "from ovseg.text import b", True),
        ("dense/a.py", "from ..text.b import c", True),
        ("dense/a.py", "from .. import predict", True),
        ("dense/a.py", "def f():\n    import ovseg.score.b", True),
        ("dense/deep/a.py", "from ...text import b", True),
        ("dense/a.py", "from . import text", False),
        ("dense/a.py", "from ovseg.towers import b", False),
        ("registry.py", "from .compat import b", True),
        ("cli/a.py", "from ovseg.apis import b", False),
        ("__init__.py", "from ovseg.apis import b", False),
    ],
)
def test_the_check_of_imports(tmp_path, file, code, wrong):
    path = tmp_path / "ovseg" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert bool(wrong_way(path, tmp_path)) == wrong


def test_families_of_towers_know_themselves_alone():
    files = [path for path in sources("ovseg/towers") if "@TOWERS.register_module" in path.read_text(encoding="utf-8")]
    families = {f"ovseg.towers.{path.stem}" for path in files}
    assert len(families) >= 3
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources("ovseg")
        for line, name in imports(path)
        if room(path) != "towers" and families & {name, name.rpartition(".")[0]}
    ]
    assert not found, "\n".join(found)


def test_mmseg_and_mmdet_stay_upstairs():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources("ovseg")
        for line, name in imports(path)
        if name.partition(".")[0] in ("mmseg", "mmdet") and room(path) not in MAY_USE_MM
    ]
    assert not found, "\n".join(found)


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources("ovseg", "tools", "demo")}
    long = {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > LONGEST}
    assert not long, f"above {LONGEST} lines: {long}"


@pytest.mark.parametrize("words", FORBIDDEN)
def test_nothing_read_is_executed(words):
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources("ovseg", "tools", "demo")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if words in line
    ]
    assert not found, f"{words!r} in {found}"
