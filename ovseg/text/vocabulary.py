"""The words a prediction is asked for: names, synonyms, colors and background in one value.

    Vocabulary.parse("cat|kitten, dog, sofa")              # every item a class, "|" separates synonyms
    Vocabulary.parse(["cat", "dog"]).with_background(0.3)   # class 0 "background" below probability 0.3
    Vocabulary.parse("my_classes.yaml")                     # .txt, .json, .yaml; see ovseg/text/reading.py
    Vocabulary.parse("ade150")                              # a benchmark; see text/benchmark_vocabularies.py

Ids, names and colors travel together from here to the legend and the exported file, so they cannot come apart.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ovseg.compat.former_names import current_keys
from ovseg.spelling import did_you_mean
from ovseg.text.background import BACKGROUND_NAME, Background
from ovseg.text.entries import check_keys, read_entry
from ovseg.text.names import clean_name, clean_words, fold
from ovseg.text.palette import BACKGROUND_GRAY, RGB, as_color, palette
from ovseg.text.reading import FORMS, SUFFIXES, Content, read_source, read_spec, read_words
from ovseg.text.splitting import split_words, words_of
from ovseg.text.stuff import STUFF_WORDS, stuff_without

__all__ = ["STUFF_WORDS", "Background", "Vocabulary"]

_KEYS = ("classes", "background", "colors", "name", "source", "license", "note", "hash")


@dataclass(frozen=True, repr=False)
class Vocabulary:
    """K classes; the index of a name is its class id.

    Args:
        names: one per class, unique up to letter case.
        synonyms: all words encoded for each class, usually its name first. Left out: the names themselves. A class
            scores the maximum over its words.
        colors: (r, g, b) in 0..255 per class. Left out: ``palette`` in the order of the names, gray for "background".
        background: policy; with any kind but "none", class 0 is "background" and its words are those of the policy.

    Raises:
        ValueError: no class, blank or repeated names, or lengths that differ.
    """

    names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...] = ()
    colors: tuple[RGB, ...] = ()
    background: Background = field(default_factory=Background)

    def __post_init__(self) -> None:
        names = tuple(clean_name(name, f"class {index}") for index, name in enumerate(_list(self.names, "names")))
        _check_names(names, self.background)
        synonyms = _clean_synonyms(names, _list(self.synonyms, "synonyms"), self.background)
        colors = tuple(as_color(color, name) for color, name in zip(self.colors, names, strict=False))
        if len(self.colors) not in (0, len(names)):
            raise ValueError(f"{len(names)} classes need as many colors, got {len(self.colors)}; give all or none.")
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "synonyms", synonyms)
        object.__setattr__(self, "colors", colors or default_colors(names))

    # --- making one ------------------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, spec: Vocabulary | str | Path | Sequence[Any] | Mapping[str, Any]) -> Vocabulary:
        """Vocabulary from a list, a comma string, a file path, the name of a benchmark, or a mapping as of ``to_dict``.

        Raises:
            ValueError: empty vocabulary, blank or repeated names, misspelled benchmark, malformed file.
            FileNotFoundError: the path of a file that does not exist.
        Warns:
            UserWarning: the same word describes several classes; something was guessed, such as numbering left out.
        """
        return spec if isinstance(spec, Vocabulary) else cls._of(read_spec(spec))

    @classmethod
    def from_words(cls, text: str) -> Vocabulary:
        """Vocabulary from a string of words, as of ``-c``: never a benchmark, and a file only if one is there, which is
        said. Errors and warnings as in ``parse``."""
        return cls._of(read_words(text))

    @classmethod
    def from_source(cls, text: str) -> Vocabulary:
        """Vocabulary from the name of a file or a benchmark, as of ``-v``; never words. Errors and warnings as in
        ``parse``."""
        return cls._of(read_source(text))

    @classmethod
    def _of(cls, content: Content) -> Vocabulary:
        vocabulary = cls.from_dict(content.spec, content.where)
        if content.notes:
            where = "" if content.where == "the vocabulary" else f" of {content.where}"
            warnings.warn(f"words{where}: {'; '.join(content.notes)}.", UserWarning, stacklevel=3)
        if not content.benchmark:
            warn_shared_words(vocabulary)
        return vocabulary

    @classmethod
    def from_file(cls, path: str | Path) -> Vocabulary:
        """Vocabulary from a .txt, .json, .yaml or .yml file; errors and warnings as in ``parse``."""
        return cls.parse(Path(path))

    @classmethod
    def from_dict(cls, spec: Mapping[str, Any], where: str = "the vocabulary") -> Vocabulary:
        """Inverse of ``to_dict``; it also reads what people write by hand, see ``text.reading``.

        Args:
            spec: ``classes``, and optionally ``background`` and ``colors``.
            where: how errors call the mapping.

        Raises:
            ValueError: an unknown key, classes or colors that are no lists, and what the constructor raises.
        """
        spec = current_keys(spec)
        check_keys(spec, _KEYS, where)
        classes, colors = spec.get("classes"), spec.get("colors")
        if not isinstance(classes, (list, tuple)):
            raise ValueError(f"{where} has {'no' if classes is None else 'a wrong'} 'classes'; expected {FORMS}.")
        if colors is not None and not isinstance(colors, (list, tuple)):
            raise ValueError(f"'colors' of {where} must be a list with one color per class, got {colors!r}.")
        entries = [read_entry(item, f"class {i} of {where}") for i, item in enumerate(classes)]
        names = tuple(entry.name for entry in entries)
        own = tuple(entry.color or color for entry, color in zip(entries, default_colors(names), strict=True))
        vocabulary = cls(names, tuple(entry.words for entry in entries), own)
        if spec.get("background") is not None:
            vocabulary = vocabulary.replace_background(vocabulary.policy(spec["background"]))
        return vocabulary if colors is None else replace(vocabulary, colors=tuple(colors))

    # --- reading it ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        listing = ", ".join(self.names[:5]) + (", ..." if len(self) > 5 else "")
        return f"Vocabulary({len(self)} classes: {listing}; background {self.background.kind}; hash {self.hash})"

    @cached_property
    def prompts(self) -> tuple[str, ...]:
        """All names to encode (before templates), class by class."""
        return tuple(word for words in self.synonyms for word in words)

    @cached_property
    def prompt_to_class(self) -> tuple[int, ...]:
        """Class id of each prompt."""
        return tuple(index for index, words in enumerate(self.synonyms) for _ in words)

    @cached_property
    def hash(self) -> str:
        """12 hex digits over names, words and background (not colors): equal hash, comparable scores."""
        content = json.dumps([self.names, self.synonyms, self.background.to_dict()], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def index(self, name: str) -> int:
        """Class id of a name or, failing that, of a synonym; letter case does not matter.

        Raises:
            ValueError: unknown word (with the closest known ones), or a synonym of several classes.
        """
        ids = self._ids.get(fold(name), [])
        if len(ids) == 1:
            return ids[0]
        if ids:
            shared = ", ".join(self.names[i] for i in ids)
            raise ValueError(f"{name!r} describes several classes: {shared}. Use the name of the class.")
        listing = ", ".join(self.names[:20]) + (", ..." if len(self) > 20 else "")
        raise ValueError(
            f"no class is called {name!r}. {did_you_mean(name, (*self.names, *self.prompts))}The {len(self)} classes "
            f"are {listing}."
        )

    @cached_property
    def _ids(self) -> dict[str, list[int]]:
        """Class ids by folded word; a class name belongs to its class alone."""
        ids: dict[str, list[int]] = {}
        for word, index in zip(self.prompts, self.prompt_to_class, strict=True):
            ids.setdefault(fold(word), []).append(index)
        return ids | {fold(name): [index] for index, name in enumerate(self.names)}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: ``classes`` (without the background class), ``background`` and, if not the default ones,
        ``colors`` of all K classes."""
        start = int(self.background.kind != "none")
        classes = zip(self.names[start:], self.synonyms[start:], strict=True)
        spec: dict[str, Any] = {
            "classes": [_plain(name, words) for name, words in classes],
            "background": self.background.to_dict(),
        }
        if self.colors != default_colors(self.names):
            spec["colors"] = [list(color) for color in self.colors]
        return spec

    # --- changing it -----------------------------------------------------------------------------------------------

    def with_background(self, background: Background | Any) -> Vocabulary:
        """The same classes under another policy (anything ``Background.parse`` reads). Ids move by one if the
        background class comes or goes. A class 0 already called "background" keeps its words under a bare threshold.
        Of "words", the names of stuff, those leave that describe a class already.

        Raises:
            ValueError: "background" is a class but not class 0, or no other class is left.
        Warns:
            UserWarning: a background word also describes another class.
        """
        changed = self.replace_background(self.policy(background))
        warn_shared_words(changed)
        return changed

    def policy(self, spec: Any) -> Background:
        """What ``Background.parse`` reads; of "words", only the names of stuff that describe none of the classes."""
        background = Background.parse(spec)
        if isinstance(spec, str) and background.words == STUFF_WORDS:
            start = int(fold(self.names[0]) == BACKGROUND_NAME)
            named = [
                word
                for name, words in list(zip(self.names, self.synonyms, strict=True))[start:]
                for word in (name, *words)
            ]
            background = replace(background, words=stuff_without(named, words=STUFF_WORDS))
        return background

    def replace_background(self, background: Background) -> Vocabulary:
        """``with_background`` without its warning."""
        if background.kind == self.background.kind == "none":
            return self if background.chosen == self.background.chosen else replace(self, background=background)
        start = int(fold(self.names[0]) == BACKGROUND_NAME)
        names, synonyms, colors = self.names[start:], self.synonyms[start:], self.colors[start:]
        if background.kind != "none":
            if start and background.kind == "threshold" and not background.words:
                background = Background("threshold", background.threshold, self.synonyms[0])
            names, synonyms = (BACKGROUND_NAME, *names), (background.words, *synonyms)
            colors = (self.colors[0] if start else BACKGROUND_GRAY, *colors)
        return Vocabulary(names, synonyms, colors, background)

    def subset(self, names: str | Iterable[str]) -> Vocabulary:
        """Only these classes (names or synonyms), in this order, with their words and colors. The background class of
        a policy stays class 0.

        Raises:
            ValueError: unknown name, the same class twice, or none at all.
        """
        wanted = [words_of(item)[0] for item in split_words(names).items] if isinstance(names, str) else names
        ids = [self.index(name) for name in wanted]
        if self.background.kind != "none":
            ids = [0, *(i for i in ids if i != 0)]
        return Vocabulary(
            tuple(self.names[i] for i in ids),
            tuple(self.synonyms[i] for i in ids),
            tuple(self.colors[i] for i in ids),
            self.background,
        )


def unseen_names(vocabulary: Vocabulary, unseen: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a vocabulary that training must not see.

    Args:
        vocabulary: the classes of the training labels.
        unseen: names, or a file or a list of names as ``Vocabulary.parse`` takes it ("ov_coco_novel").

    Raises:
        ValueError: names that the vocabulary does not have, or nothing but unseen ones.
    """
    names = Vocabulary.parse(unseen).names if isinstance(unseen, str) else tuple(unseen)
    unknown = [name for name in names if name not in vocabulary.names]
    if unknown or set(vocabulary.names) <= set(names):
        raise ValueError(
            f"unseen: {', '.join(unknown) or 'all classes'}; expected some of the names of the training labels: "
            f"{', '.join(vocabulary.names[:8])}, …."
        )
    return names


def default_colors(names: Sequence[str]) -> tuple[RGB, ...]:
    """Gray for "background", the palette in order for all other names."""
    fresh = iter(palette(len(names)))
    return tuple(BACKGROUND_GRAY if fold(name) == BACKGROUND_NAME else next(fresh) for name in names)


def warn_shared_words(vocabulary: Vocabulary) -> None:
    """Warn of words that describe several classes, since only the first of these can win by such a word."""
    owners: dict[str, list[str]] = {}
    for word, index in zip(vocabulary.prompts, vocabulary.prompt_to_class, strict=True):
        owners.setdefault(fold(word), []).append(vocabulary.names[index])
    shared = [f"{word!r} ({', '.join(names)})" for word, names in owners.items() if len(names) > 1]
    if shared:
        warnings.warn(
            f"the same word describes several classes: {'; '.join(shared[:10])}{'; ...' if len(shared) > 10 else ''}. "
            f"Equal words score equally, so the first of these classes always wins.",
            UserWarning,
            stacklevel=3,
        )


def _list(values: Any, what: str) -> Sequence[Any]:
    if isinstance(values, (list, tuple)):
        return values
    raise ValueError(f"{what} must be a list, got {values!r}. Vocabulary.parse also reads strings, files and more.")


def _plain(name: str, words: Sequence[str]) -> str | dict[str, Any]:
    plain = name[0].isalpha() and not set(name) & set("_|") and not name.lower().endswith((*SUFFIXES, ",", ";"))
    if words == (name,) and plain:  # what the reader of lists leaves as it is
        return name
    return {"name": name, "synonyms": list(words[1:])} if words[0] == name else {"name": name, "words": list(words)}


def _check_names(names: Sequence[str], background: Background) -> None:
    with_background = background.kind != "none"
    if len(names) <= with_background:
        raise ValueError("the vocabulary is empty. Give at least one class, for example 'cat, dog' or ['cat', 'dog'].")
    positions: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        positions.setdefault(fold(name), []).append(index)
    repeated = [ids for ids in positions.values() if len(ids) > 1]
    if repeated:
        listing = ", ".join(f"{names[ids[0]]!r} (classes {', '.join(map(str, ids))})" for ids in repeated[:10])
        raise ValueError(
            f"the vocabulary repeats {listing}{' and others' if len(repeated) > 10 else ''}; classes are counted from "
            f"0 and letter case does not distinguish names. Name every class once, or join words: 'cat|kitten'."
        )
    if with_background and (fold(names[0]) != BACKGROUND_NAME):
        where = (
            f"it is class {positions[BACKGROUND_NAME][0]}" if BACKGROUND_NAME in positions else "there is no such class"
        )
        raise ValueError(
            f"with background policy {background.kind!r} class 0 must be called 'background', but {where}. Put it "
            f"first, or leave it out and call with_background(...), which adds it."
        )


def _clean_synonyms(
    names: Sequence[str], synonyms: Sequence[Any], background: Background
) -> tuple[tuple[str, ...], ...]:
    if len(synonyms) not in (0, len(names)):
        raise ValueError(f"{len(names)} classes need as many lists of words, got {len(synonyms)}; give all or none.")
    words = [
        clean_words(_list(group, f"words of class {name!r}"), f"a word of class {name!r}")
        for name, group in zip(names, synonyms or [(name,) for name in names], strict=True)
    ]
    if background.kind != "none":
        words[0] = background.words
    empty = [names[i] for i, group in enumerate(words) if not group and not (i == 0 and background.kind != "none")]
    if empty:
        raise ValueError(f"no word describes {', '.join(map(repr, empty))}. Leave the words out to use the name.")
    return tuple(words)
