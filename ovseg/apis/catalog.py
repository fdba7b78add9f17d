"""What the registered classes declare, read off their source files: nothing is imported, so a list of all methods takes
a moment and no PyTorch, MMSegmentation or MMDetection.

Attributes are literals in the body of a class; those of its bases in the package are inherited.
"""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ovseg.literals import literal

PACKAGE = Path(__file__).parents[1]
ROOMS = ("dense", "refine", "score", "catseg", "regions", "detectors", "segmentors")


@dataclass(frozen=True)
class Declared:
    """A registered class.

    registry  the name of its registry, such as ``DENSE``
    room      the folder it is in
    type      the class name that configs use
    doc       its documentation
    own       attributes of its own body; ``attributes``: with those of its bases in the package
    """

    registry: str
    room: str
    type: str
    doc: str
    own: dict[str, Any]
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        """As people type it."""
        return self.own.get("name") or self.type.lower()


@cache
def declared(registry: str) -> tuple[Declared, ...]:
    """The classes that the package registers in a registry, sorted by name."""
    return tuple(sorted((each for each in _all() if each.registry == registry), key=lambda each: each.name))


@cache
def _all() -> tuple[Declared, ...]:
    classes: dict[str, tuple[str, ast.ClassDef]] = {}
    for room in ROOMS:
        for path in sorted((PACKAGE / room).glob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            classes |= {node.name: (room, node) for node in tree.body if isinstance(node, ast.ClassDef)}
    bodies = {name: _literals(node) for name, (_, node) in classes.items()}

    def inherited(name: str) -> dict[str, Any]:
        _, node = classes[name]
        bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
        above: dict[str, Any] = {}
        for base in reversed(bases):
            above |= inherited(base)
        return above | bodies[name]

    registered = []
    for name, (room, node) in classes.items():
        for registry, kind in _registrations(node):
            doc = ast.get_docstring(node) or ""
            registered.append(Declared(registry, room, kind or name, doc, bodies[name], inherited(name)))
    return tuple(registered)


def _registrations(node: ast.ClassDef) -> list[tuple[str, str | None]]:
    """(registry, name or None) of each ``@REGISTRY.register_module(name=…)``."""
    return [
        (call.func.value.id, next((each.value.value for each in call.keywords if each.arg == "name"), None))
        for call in node.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "register_module"
    ]


def _literals(node: ast.ClassDef) -> dict[str, Any]:
    """The attributes of a class body whose values are literals, ``dict(…)`` included."""
    values = {}
    for line in node.body:
        target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
        if isinstance(target, ast.Name) and getattr(line, "value", None) is not None:
            try:
                values[target.id] = literal(line.value)
            except ValueError:
                continue
    return values
