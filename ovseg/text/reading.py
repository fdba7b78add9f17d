"""Vocabularies from what people write: lists, comma strings, files.

========  ============================================================================================================
form      meaning
========  ============================================================================================================
list      every item is a class, ``"cat|kitten"`` gives synonyms, a mapping is read like a class in JSON
string    a benchmark name, a file path, or classes separated by commas with ``|`` between synonyms
.txt      one class per line, ``", "`` between synonyms: ``cat, kitten``
.json     a list of classes, or ``{"classes": [...], "background": ..., "colors": [...]}``; a class is a name or
.yaml     ``{"name": "cat", "synonyms": ["kitten"], "color": "#0072b2"}``; with ``"words"`` instead of ``"synonyms"``
          exactly those words are encoded and not the name
========  ============================================================================================================

``background`` is whatever ``Background.parse`` reads; the background class itself is not listed among the classes.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ovseg.compat.untrusted import parse_json
from ovseg.spelling import did_you_mean
from ovseg.text.benchmark_vocabularies import benchmark_spec, canonical_benchmark, suspected_benchmark
from ovseg.text.entries import Entry, read_entry
from ovseg.text.names import clean_words

SUFFIXES = (".txt", ".json", ".yaml", ".yml")
FORMS = "a list of classes or a mapping with the key 'classes'; a class is a name or {name, synonyms, color}"


class Content(NamedTuple):
    """What was written.

    spec        the mapping that ``Vocabulary.from_dict`` reads
    where       how errors call it
    benchmark   whether it is a list of this package, whose words are known to be as its authors chose them
    """

    spec: Mapping[str, Any]
    where: str = "the vocabulary"
    benchmark: bool = False


def read_spec(spec: Any) -> Content:
    """See ``Vocabulary.parse``."""
    if isinstance(spec, Path):
        return _read_file(spec)
    if isinstance(spec, str):
        return _read_string(spec.strip())
    if isinstance(spec, Mapping):
        return Content(spec)
    if isinstance(spec, (list, tuple)):
        _warn_single(spec, "the list has one item, hence one class", "Give the classes as separate items")
        return _read_items(spec)
    raise ValueError(
        f"cannot read a vocabulary from {spec!r} of type {type(spec).__name__}. Give a list such as ['cat', 'dog'], a "
        f"string such as 'cat, dog', the path of a {', '.join(SUFFIXES)} file, or the name of a benchmark ('ade150')."
    )


def _read_file(path: Path) -> Content:
    path = path.expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"vocabulary file {path} ends in {path.suffix!r}; expected one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        kind = "is not a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"vocabulary file {path} {kind}. {near}Looked in {path.parent.absolute()}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"vocabulary file {path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    if not text.strip():
        raise ValueError(f"vocabulary file {path} is empty; expected {_expected(path)}.")
    if path.suffix.lower() == ".txt":
        return _read_lines(text, path)
    data, where = _load(text, path), f"vocabulary file {path}"
    if isinstance(data, list):
        return Content({"classes": data}, where)
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} holds {type(data).__name__}; expected {FORMS}.")
    return Content(data, where)


def _read_string(text: str) -> Content:
    if canonical_benchmark(text):
        return Content(benchmark_spec(text), f"benchmark vocabulary {text}", benchmark=True)
    if text.lower().endswith(SUFFIXES) or _is_file(text):
        return _read_file(Path(text))
    if not text:
        return Content({"classes": []})
    guess = suspected_benchmark(text)
    if guess:
        raise ValueError(
            f"there is no benchmark vocabulary {text!r}. Did you mean {guess!r}? If {text!r} is one of your classes, "
            f"give it in a list: [{text!r}]."
        )
    return _read_items(text.split(","))


def _is_file(text: str) -> bool:
    try:
        return "," not in text and Path(text).suffix != "" and Path(text).is_file()
    except OSError:  # longer than a path may be
        return False


def _read_items(items: Sequence[Any]) -> Content:
    return _as_content([read_entry(item, f"item {i}") for i, item in enumerate(items, 1)])


def _read_lines(text: str, path: Path) -> Content:
    lines = text.rstrip().splitlines()
    entries = []
    for number, line in enumerate(lines, 1):
        where = f"line {number} of vocabulary file {path}"
        if "\t" in line.strip():
            raise ValueError(f"{where} has columns separated by tabs: {line!r}; expected {_expected(path)}.")
        words = clean_words(line.split(", "), where)
        entries.append(Entry(words[0], words))
    _warn_single(lines, f"vocabulary file {path} has one line, hence one class", "Write each class on its own line")
    return _as_content(entries)


def _as_content(entries: Sequence[Entry]) -> Content:
    return Content({"classes": [entry.to_dict() for entry in entries]})


def _load(text: str, path: Path) -> Any:
    try:
        if path.suffix.lower() == ".json":
            return parse_json(text, "its text")
        import yaml

        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(str(error)) from None
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"vocabulary file {path} cannot be read ({reason}); expected {_expected(path)}.") from None


def _expected(path: Path) -> str:
    one_per_line = "one class per line, nothing else on it, synonyms after it separated by ', '"
    return one_per_line if path.suffix.lower() == ".txt" else FORMS


def _warn_single(items: Sequence[Any], fact: str, advice: str) -> None:
    if len(items) == 1 and isinstance(items[0], str) and "," in items[0]:
        warnings.warn(f"{fact}: {items[0]!r}. {advice} if these are several classes.", UserWarning, stacklevel=4)
