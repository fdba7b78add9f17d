"""What the shell completes: methods, refiners and weights.

Names are read off source files, so the answer comes at once and without PyTorch.
"""

import ast
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ovseg.apis.catalog import declared

Completion = tuple[str, str]
"""A name, and what shells show beside it."""

WEIGHTS = (("tiny", "the embedded demo model"), ("openai", "ViT-B-16 of OpenAI"))


def complete_methods(incomplete: str) -> list[Completion]:
    """Extractors."""
    return _matching(incomplete, _described("DENSE"))


def complete_detectors(incomplete: str) -> list[Completion]:
    """Extractors, and detectors that load from a checkpoint."""
    models = [each for each in declared("MODELS") if "name" in each.own and each.attributes.get("loader")]
    trained = [(each.name, "trained: --weights CHECKPOINT") for each in models]
    return _matching(incomplete, [*_described("DENSE"), *trained])


def complete_method_list(incomplete: str) -> list[Completion]:
    """The last name of several with commas between them, or "all"."""
    before, comma, last = incomplete.rpartition(",")
    names = _described("DENSE") if comma else [("all", "those that need no other file"), *_described("DENSE")]
    lead = before + comma + " " * (len(last) - len(last.lstrip()))
    return [(lead + name, about) for name, about in _matching(last.lstrip(), names)]


def complete_refiners(incomplete: str) -> list[Completion]:
    """Refiners, or "none"."""
    return _matching(incomplete, [*_described("REFINERS"), ("none", "")])


def complete_weights(incomplete: str) -> list[Completion]:
    """The embedded model and open_clip's tags, architecture first; files are not completed here."""
    return _matching(incomplete, [*WEIGHTS, *((f"{arch}/{tag}", "") for arch, tag in open_clip_tags())])


@cache
def open_clip_tags() -> tuple[tuple[str, str], ...]:
    """(architecture, tag) of the weights that open_clip lists, read off its file; empty if there is none such.

    Its table is a literal of names and of ``dict(tag=…)``, or of names of such.  The same weights under architectures
    called ``…-quickgelu`` are left out.
    """
    package = find_spec("open_clip")
    if package is None or package.origin is None:
        return ()
    try:
        lines = ast.parse(Path(package.origin).with_name("pretrained.py").read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, UnicodeDecodeError):
        return ()
    values = {line.targets[0].id: line.value for line in lines if _assigns_a_name(line)}
    table = values.get("_PRETRAINED")
    if not isinstance(table, ast.Dict):
        return ()
    pairs = []
    for key, value in zip(table.keys, table.values, strict=True):
        tags = values.get(value.id) if isinstance(value, ast.Name) else value
        if isinstance(key, ast.Constant) and isinstance(tags, ast.Call):
            pairs += [(str(key.value), each.arg) for each in tags.keywords if each.arg]
    return tuple(pairs)


def _assigns_a_name(line: ast.stmt) -> bool:
    return isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)


def _described(registry: str) -> list[Completion]:
    return [(each.name, str(each.attributes.get("paper") or "")) for each in declared(registry)]


def _matching(incomplete: str, choices: Iterable[Completion]) -> list[Completion]:
    """Those that begin as what was typed, whatever the letter case and whether with ``-`` or ``_``."""
    start = incomplete.casefold().replace("-", "_")
    return [(name, about) for name, about in choices if name.casefold().replace("-", "_").startswith(start)]
