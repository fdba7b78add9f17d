"""Vocabularies from what people write: lists, strings, files. ``docs/words.md`` has every rule in a table.

========  ============================================================================================================
form      meaning
========  ============================================================================================================
list      every item is a class, ``"cat|kitten"`` gives synonyms, a mapping is read like a class in JSON
string    a benchmark name, a file path, or classes separated as in ``text.splitting`` with ``|`` between synonyms
.txt      one class per line, ``", "`` or ``|`` between synonyms: ``cat, kitten``; also .names and files without suffix
.json     a list of classes, or ``{"classes": [...], "background": ..., "colors": [...]}``; a class is a name or
.yaml     ``{"name": "cat", "synonyms": ["kitten"], "color": "#0072b2"}``; with ``"words"`` instead of ``"synonyms"``
          exactly those words are encoded and not the name; also what ``text.layouts`` lists
========  ============================================================================================================

``background`` is whatever ``Background.parse`` reads; the background class itself is not listed among the classes. A
name written as a plain string is cleaned (quotes, numbering); where it has underscores it keeps them, but is encoded
with spaces. Names in mappings are exact.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ovseg.compat.untrusted import bounded, parse_json, parse_yaml
from ovseg.spelling import did_you_mean
from ovseg.text.benchmark_vocabularies import benchmark_spec, canonical_benchmark, list_benchmarks, suspected_benchmark
from ovseg.text.entries import Entry, read_entry
from ovseg.text.layouts import read_layout
from ovseg.text.names import clean_words, natural, shortened, visible
from ovseg.text.splitting import split_words, without_comments, without_numbers, words_of, words_of_line

LISTS = (".txt", ".names", "")
SUFFIXES = (".txt", ".json", ".yaml", ".yml", ".names")
FORMS = "a list of classes or a mapping with the key 'classes'; a class is a name or {name, synonyms, color}"
_LAYOUT = re.compile(r"^(classes|names|categories|id2label|label2id)\s*:", re.MULTILINE)


class Content(NamedTuple):
    """What was written.

    spec        the mapping that ``Vocabulary.from_dict`` reads
    where       how errors call it
    benchmark   whether it is a list of this package, whose words are known to be as its authors chose them
    notes       what was guessed, in words
    """

    spec: Mapping[str, Any]
    where: str = "the vocabulary"
    benchmark: bool = False
    notes: Sequence[str] = ()


def read_spec(spec: Any) -> Content:
    """See ``Vocabulary.parse``."""
    if isinstance(spec, os.PathLike):
        return read_file(Path(spec))
    if isinstance(spec, str):
        return _read_string(spec.strip())
    if isinstance(spec, Mapping):
        return _read_data(spec, "the vocabulary")
    if isinstance(spec, (list, tuple)):
        return _read_data(list(spec), "the vocabulary")
    raise ValueError(
        f"cannot read a vocabulary from {spec!r} of type {type(spec).__name__}. Give a list such as ['cat', 'dog'], a "
        f"string such as 'cat, dog', the path of a {', '.join(SUFFIXES)} file, or the name of a benchmark ('ade150')."
    )


def read_source(text: str) -> Content:
    """The file or benchmark of that name; never a list of words.

    Raises:
        FileNotFoundError: neither of both.
        ValueError: a folder, and what ``Vocabulary.parse`` raises.
    """
    text = text.strip()
    if canonical_benchmark(text):
        content = _read_benchmark(text)
        note = [f"{text!r} is the benchmark, not the file of this name (./{text} is that)"] if _is_file(text) else []
        return content._replace(notes=note)
    if not text:
        raise ValueError("the name of the vocabulary is empty: give a file of words, or a benchmark such as ade150.")
    path = _path(Path(text))
    if path is None or (not path.exists() and (not path.suffix or len(split_words(text).items) > 1)):
        near = "" if path is None else did_you_mean(text, [*list_benchmarks(), *_beside(path)])
        raise FileNotFoundError(
            f"there is neither a file nor a benchmark {shortened(text)!r}. {near}If it is meant as words, give them "
            "with -c instead of -v."
        )
    return read_file(path)


def read_words(text: str) -> Content:
    """A string of words, as of ``-c``; a file that is there is read, and said.

    Raises:
        ValueError: no words, or a benchmark or a file that is not there among them.
    """
    text = text.strip()
    if _is_file(text) and (Path(text).suffix or Path(text).name != text):
        content = read_file(Path(text))
        return content._replace(notes=[f"read from the file {text} (-v {text} says so)", *content.notes])
    benchmark = canonical_benchmark(text) or suspected_benchmark(text)
    if benchmark and not text.replace(" ", "").isalpha():
        raise ValueError(f"-c takes words, and {text!r} looks like a benchmark: give -v {benchmark}.")
    content = _read_text(text)
    note = []
    if canonical_benchmark(text):
        note = [f"{text!r} is taken for a word (-v {text} is the benchmark)"]
    elif _is_file(text):
        note = [f"{text!r} is taken for a word (-v {text} reads the file)"]
    return content._replace(notes=[*note, *content.notes])


def read_file(path: Path) -> Content:
    """The vocabulary in a file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a folder, an unknown suffix, not UTF-8, not what its suffix says.
    """
    spec, path = path, _path(path)
    if path is None:
        raise FileNotFoundError(f"there can be no file of the name {shortened(str(spec))!r}.")
    if path.is_dir() and path.suffix.lower() not in SUFFIXES:
        inside = sorted(p.name for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        hint = (
            f"it holds {', '.join(inside[:5])}: give {path / inside[0]}" if inside else "no file in it looks like one"
        )
        raise ValueError(f"a vocabulary is a file, and {path} is a folder; {hint}.")
    if path.suffix.lower() not in (*SUFFIXES, ""):
        raise ValueError(f"vocabulary file {path} ends in {path.suffix!r}; expected one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        kind = "is not a file" if path.exists() else "does not exist"
        near = did_you_mean(path.name, _beside(path))
        raise FileNotFoundError(f"vocabulary file {path} {kind}. {near}Looked in {path.parent.absolute()}.")
    text, where = _decode(path), f"vocabulary file {path}"
    if not text.strip():
        raise ValueError(f"{where} is empty; expected {_expected(path)}.")
    if path.suffix.lower() in LISTS:
        start = text.lstrip()[:1]
        if start == "{" or _LAYOUT.search(text):
            return _read_data(_load(text, path, json=start == "{"), where)
        return _read_text(text, where) if start == "[" else _read_lines(text, path)
    return _read_data(_load(text, path, json=path.suffix.lower() == ".json"), where)


def _decode(path: Path) -> str:
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"vocabulary file {path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    if "\0" in text:
        raise ValueError(f"vocabulary file {path} is no text. Save it as UTF-8.")
    return text


def _read_benchmark(name: str) -> Content:
    return Content(benchmark_spec(name), f"benchmark vocabulary {name}", benchmark=True)


def _read_string(text: str) -> Content:
    if canonical_benchmark(text):
        return _read_benchmark(text)
    lone = len(split_words(text).items) == 1
    if (lone and text.lower().endswith(SUFFIXES)) or (_is_file(text) and Path(text).name != text):
        return read_file(Path(text))
    if _is_file(text):
        if Path(text).suffix:
            return read_file(Path(text))
        content = _read_text(text)
        note = f"{text!r} is taken for a word, not for the file of this name: Path({text!r}) is that"
        return content._replace(notes=[note, *content.notes])
    guess = suspected_benchmark(text) if lone else None
    if guess:
        raise ValueError(
            f"there is no benchmark vocabulary {text!r}. Did you mean {guess!r}? If {text!r} is one of your classes, "
            f"give it in a list: [{text!r}]."
        )
    return _read_text(text)


def _path(path: Path) -> Path | None:
    """The path with its ``~`` expanded; None if it can be none, being too long for one, say."""
    try:
        path = path.expanduser()
        path.exists()
        return path
    except (OSError, ValueError, RuntimeError):
        return None


def _is_file(text: str) -> bool:
    path = _path(Path(text))
    return path is not None and path.is_file()


def _beside(path: Path) -> list[str]:
    try:
        return [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:
        return []


def _read_text(text: str, where: str = "the vocabulary") -> Content:
    items, notes = split_words(text)
    return _as_content(*_read_items(items, "item", where, start=1), notes, where)


def _read_data(data: Any, where: str) -> Content:
    """What a list or a mapping describes, in our own form or in that of another tool."""
    layout = read_layout(data, where)
    if layout is not None:
        content = _as_content(*_read_items(layout.items, "class", where), layout.notes, where)
        beside = {key: data[key] for key in ("background", "colors") if isinstance(data, Mapping) and key in data}
        return content._replace(spec={**content.spec, **beside})
    if isinstance(data, list):
        notes = _one_string(data)
        numbered = without_numbers(data) if data and all(isinstance(item, str) for item in data) else (data, [])
        kind, start = ("item", 1) if where == "the vocabulary" else ("class", 0)
        entries, more = _read_items(numbered[0], kind, where, start)
        return _as_content(entries, more, [*notes, *numbered[1]], where)
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} holds {type(data).__name__}; expected {FORMS}.")
    if not isinstance(data.get("classes"), (list, tuple)):
        return Content(data, where)
    entries, notes = _read_items(data["classes"], "class", where)
    return Content({**data, "classes": [entry.to_dict() for entry in entries]}, where, notes=notes)


def _one_string(items: Sequence[Any]) -> list[str]:
    if len(items) != 1 or not isinstance(items[0], str) or len(split_words(items[0]).items) < 2:
        return []
    return [f"the list has one item, hence one class: {items[0]!r}; give classes as separate items"]


def _read_items(items: Sequence[Any], kind: str, where: str, start: int = 0) -> tuple[list[Entry], list[str]]:
    entries, notes = [], []
    for number, item in enumerate(items, start):
        place = f"{kind} {number}" if where == "the vocabulary" else f"{kind} {number} of {where}"
        if not isinstance(item, str):
            entries.append(read_entry(item, place))
            continue
        item = visible(item).strip().rstrip(" ,;") or item
        if re.match(r"(#|//)\s", item):
            raise ValueError(f"{place} is {item!r}, which looks like a comment: leave it out of the list.")
        if item.strip().lower().endswith(SUFFIXES):
            raise ValueError(
                f"{place} is {item.strip()!r}, which looks like a file: give -v {item.strip()} or its path alone to "
                f"read it, or {{'name': {item.strip()!r}}} for a class of that name."
            )
        entries.append(_entry(words_of(item), place, notes))
    return entries, notes[:1]


def _entry(words: Sequence[str], where: str, notes: list[str]) -> Entry:
    """A class from plain words; underscores are encoded as spaces."""
    words = clean_words(words, where)
    spoken = clean_words(map(natural, words), where)
    if spoken != words:
        changed = next(word for word in words if natural(word) != word)
        notes.append(f"underscores are encoded as spaces ({changed!r} as {natural(changed)!r})")
    return Entry(words[0], spoken)


def _read_lines(text: str, path: Path) -> Content:
    where, entries, notes = f"vocabulary file {path}", [], []
    lines = [(n, line.strip(" \t,;，；、")) for n, line in enumerate(without_comments(visible(text)).splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line]
    if len(lines) == 1 and len(split_words(lines[0][1]).items) > 1:
        content = _read_text(lines[0][1], where)
        note = f"the one line of {path} holds {len(content.spec['classes'])} classes, '|' joins synonyms"
        return content._replace(notes=[note, *content.notes])
    plain, more = without_numbers([line for _, line in lines], bare=True)
    for (number, line), rest in zip(lines, plain, strict=True):
        place = f"line {number} of {where}"
        if "\t" in rest:
            raise ValueError(f"{place} has columns separated by tabs: {line!r}; expected {_expected(path)}.")
        entries += [_entry(words, place, notes) for words in words_of_line(rest)]
    if entries and all(entry.name.isdecimal() and len(entry.words) > 1 for entry in entries):
        first = entries[0]
        more.append(f"{first.name!r} is read as a name and {first.words[1]!r} as its synonym; ids are '0: bus'")
    return _as_content(entries, notes[:1], more, where)


def _as_content(entries: Sequence[Entry], notes: Sequence[str], more: Sequence[str], where: str) -> Content:
    return Content({"classes": [entry.to_dict() for entry in entries]}, where, notes=[*more, *notes])


def _load(text: str, path: Path, json: bool) -> Any:
    try:
        if not json:
            return parse_yaml(text, "its text")
        data = parse_json(text, "its text")
        if isinstance(data, dict) and isinstance(data.get("categories"), list) and "classes" not in data:
            data = {"categories": data["categories"]}  # of COCO's files, whose annotations may be millions
        return bounded(data, "its text")
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"vocabulary file {path} cannot be read ({reason}); expected {_expected(path)}.") from None


def _expected(path: Path) -> str:
    one_per_line = "one class per line, nothing else on it, synonyms after it separated by ', '"
    return one_per_line if path.suffix.lower() in LISTS else FORMS
