"""The rules of the house: which way imports point, what is named how, how long a file may be, what is never called."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = (
    "spelling literals printable files locks rng threads progress registry compat marks "
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


def statements(tree: ast.AST):
    """All nodes of a file but those that only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            nodes = node.orelse
        else:
            nodes = [node]
        for each in nodes:
            yield each
            yield from statements(each)


def imports(path: Path, root: Path = ROOT, typing: bool = True) -> list[tuple[int, str]]:
    """(line, dotted name) of every import in a file, at any depth, relative ones made absolute.

    ``typing``: also what is imported for type checkers alone.
    """
    package = path.relative_to(root).with_suffix("").parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree) if typing else statements(tree):
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


def file_imports(root: Path) -> dict[str, set[str]]:
    """Module → modules of ovseg whose files it imports, at any depth of its code."""
    paths = sorted((root / "ovseg").rglob("*.py"))
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    graph = {}
    for name, path in zip(names, paths, strict=True):
        targets = [target for _, target in imports(path, root, typing=False)]
        graph[name] = {t if t in names else t.rpartition(".")[0] for t in targets} & set(names) - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that reach each other: strongly connected components of more than one node (Tarjan, 1972)."""
    index, low, stack, components = {}, {}, [], []

    def visit(node: str):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[-len(component) :]
            components.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return [component for component in components if len(component) > 1]


def test_no_files_import_each_other():
    found = [", ".join(circle) for circle in circles(file_imports(ROOT))]
    assert not found, "import each other: " + "; ".join(found)


@pytest.mark.parametrize(
    "code, circle",
    [
        ("def f():\n    from .b import y", True),
        ("from ovseg.dense import b", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import y", False),
        ("import typing\nif typing.TYPE_CHECKING:\n    import os\nelse:\n    from .b import y", True),
    ],
)
def test_the_check_of_circles(tmp_path, code, circle):
    folder = tmp_path / "ovseg" / "dense"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    for name, text in (("a", code), ("b", "from .c import x"), ("c", "import ovseg.dense.a")):
        (folder / f"{name}.py").write_text(text)
    assert circles(file_imports(tmp_path)) == ([["ovseg.dense.a", "ovseg.dense.b", "ovseg.dense.c"]] if circle else [])


def test_a_class_has_its_name_alone():
    places: dict[str, list[str]] = {}
    for path in sources("ovseg"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, f"classes of one name: {twice}"


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
