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

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ovseg.text.background import Background
from ovseg.text.benchmark_vocabularies import benchmark_vocabulary, canonical_benchmark, suspected_benchmark
from ovseg.text.names import clean_name, clean_words, near_miss
from ovseg.text.vocabulary import Vocabulary, as_color, default_colors, warn_shared_words

SUFFIXES = (".txt", ".json", ".yaml", ".yml")

_CLASS_KEYS = ("name", "synonyms", "words", "color", "label")
_FILE_KEYS = ("classes", "background", "colors", "name", "source", "licence", "license", "note", "hash")
_FORMS = "a list of classes or a mapping with the key 'classes'; a class is a name or {name, synonyms, color}"


def read_spec(spec: Any) -> Vocabulary:
    """See ``Vocabulary.parse``."""
    if isinstance(spec, Vocabulary):
        return spec
    if isinstance(spec, Path):
        return read_file(spec)
    if isinstance(spec, str):
        return _read_string(spec.strip())
    if isinstance(spec, Mapping):
        return _warned(read_mapping(spec, "the vocabulary"))
    if isinstance(spec, (list, tuple)):
        _warn_single(spec, "the list has one item, hence one class", "Give the classes as separate items")
        return _warned(_build([_read_item(item, f"item {i}") for i, item in enumerate(spec, 1)]))
    raise ValueError(
        f"cannot read a vocabulary from {spec!r} of type {type(spec).__name__}. Give a list such as ['cat', 'dog'], a "
        f"string such as 'cat, dog', the path of a {', '.join(SUFFIXES)} file, or the name of a benchmark ('ade150')."
    )


def read_file(path: str | Path) -> Vocabulary:
    """See ``Vocabulary.from_file``."""
    path = Path(path).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"vocabulary file {path} ends in {path.suffix!r}; expected one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        near = near_miss(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else ""
        kind = "is not a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"vocabulary file {path} {kind}.{near} Looked in {path.parent.absolute()}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"vocabulary file {path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    if not text.strip():
        raise ValueError(f"vocabulary file {path} is empty; expected {_expected(path)}.")
    if path.suffix.lower() == ".txt":
        return _warned(_read_lines(text, path))
    data = _load(text, path)
    where = f"vocabulary file {path}"
    if isinstance(data, list):
        return _warned(_build([_read_item(item, f"class {i} of {where}") for i, item in enumerate(data)]))
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} holds {type(data).__name__}; expected {_FORMS}.")
    return _warned(read_mapping(data, where))


def read_mapping(spec: Mapping[str, Any], where: str) -> Vocabulary:
    """See ``Vocabulary.from_dict``; ``where`` is how errors call the mapping."""
    _check_keys(spec, _FILE_KEYS, where)
    classes = spec.get("classes")
    if not isinstance(classes, (list, tuple)):
        raise ValueError(f"{where} has {'no' if classes is None else 'a wrong'} 'classes'; expected {_FORMS}.")
    vocabulary = _build([_read_item(item, f"class {i} of {where}") for i, item in enumerate(classes)])
    background = Background.parse(spec.get("background"))
    if background.kind != "none":
        vocabulary = vocabulary.replace_background(background)
    colors = spec.get("colors")
    if colors is None:
        return vocabulary
    if not isinstance(colors, (list, tuple)):
        raise ValueError(f"'colors' of {where} must be a list with one colour per class, got {colors!r}.")
    return Vocabulary(vocabulary.names, vocabulary.synonyms, tuple(colors), vocabulary.background)


# A class as read: name, words, colour or None.
_Entry = tuple[str, tuple[str, ...], Any]


def _build(entries: Sequence[_Entry]) -> Vocabulary:
    names, words, colors = (tuple(column) for column in zip(*entries, strict=True)) if entries else ((), (), ())
    filled = [chosen or default for chosen, default in zip(colors, default_colors(names), strict=True)]
    return Vocabulary(names, words, tuple(filled))


def _read_string(text: str) -> Vocabulary:
    if canonical_benchmark(text):
        return benchmark_vocabulary(text)
    if text.lower().endswith(SUFFIXES) or _is_file(text):
        return read_file(text)
    if not text:
        return _build([])
    guess = suspected_benchmark(text)
    if guess:
        raise ValueError(
            f"there is no benchmark vocabulary {text!r}. Did you mean {guess!r}? If {text!r} is a class of yours, give "
            f"it in a list: [{text!r}]."
        )
    return _warned(_build([_read_item(item, f"item {i}") for i, item in enumerate(text.split(","), 1)]))


def _is_file(text: str) -> bool:
    try:
        return "," not in text and Path(text).suffix != "" and Path(text).is_file()
    except OSError:  # longer than a path may be
        return False


def _read_item(item: Any, where: str) -> _Entry:
    if not isinstance(item, Mapping):
        words = clean_words(item.split("|") if isinstance(item, str) else [item], where)
        return words[0], words, None
    _check_keys(item, _CLASS_KEYS, where)
    if "name" not in item:
        raise ValueError(f"{where} has no 'name': {dict(item)!r}. A class is a name or {{name, synonyms, color}}.")
    if "synonyms" in item and "words" in item:
        raise ValueError(
            f"{where} has both 'synonyms' and 'words'. Keep one: synonyms are encoded beside the name, words instead."
        )
    name = clean_name(item["name"], f"the name of {where}")
    given = item.get("words", item.get("synonyms")) or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"the synonyms of {where} must be a list of words, got {given!r}.")
    words = clean_words(given if "words" in item else [name, *given], f"a word of {where}")
    color = item.get("color")
    return name, words, None if color is None else as_color(color, name)


def _read_lines(text: str, path: Path) -> Vocabulary:
    lines = text.rstrip().splitlines()
    entries = []
    for number, line in enumerate(lines, 1):
        where = f"line {number} of vocabulary file {path}"
        if "\t" in line.strip():
            raise ValueError(f"{where} has columns separated by tabs: {line!r}; expected {_expected(path)}.")
        words = clean_words(line.split(", "), where)
        entries.append((words[0], words, None))
    _warn_single(lines, f"vocabulary file {path} has one line, hence one class", "Write each class on its own line")
    return _build(entries)


def _load(text: str, path: Path) -> Any:
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text)
        import yaml

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from None
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"vocabulary file {path} cannot be read ({reason}); expected {_expected(path)}.") from None


def _expected(path: Path) -> str:
    one_per_line = "one class per line, nothing else on it, synonyms after it separated by ', '"
    return one_per_line if path.suffix.lower() == ".txt" else _FORMS


def _check_keys(spec: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in spec:
        if key not in known:
            hint = near_miss(str(key), known)
            raise ValueError(f"{where} has an unknown key {key!r}.{hint} Known: {', '.join(known)}.")


def _warn_single(items: Sequence[Any], fact: str, advice: str) -> None:
    if len(items) == 1 and isinstance(items[0], str) and "," in items[0]:
        warnings.warn(f"{fact}: {items[0]!r}. {advice} if these are several classes.", UserWarning, stacklevel=4)


def _warned(vocabulary: Vocabulary) -> Vocabulary:
    warn_shared_words(vocabulary)
    return vocabulary
