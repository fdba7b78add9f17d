"""A class as people write it: ``"cat|kitten"``, or ``{"name": "cat", "synonyms": ["kitten"], "color": "#0072b2"}``."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ovseg.spelling import did_you_mean
from ovseg.text.names import clean_name, clean_words
from ovseg.text.palette import RGB, as_color

CLASS_KEYS = ("name", "synonyms", "words", "color", "label")


class Entry(NamedTuple):
    """A class: its name, the words encoded for it, its color or None."""

    name: str
    words: tuple[str, ...]
    color: RGB | None = None

    def to_dict(self) -> dict[str, Any]:
        """The mapping that ``read_entry`` reads as this entry."""
        color = {} if self.color is None else {"color": self.color}
        return {"name": self.name, "words": list(self.words)} | color


def read_entry(item: Any, where: str) -> Entry:
    """The class that a string or a mapping describes; ``where`` is how errors call it.

    Raises:
        ValueError: a blank name or word, an unknown key, "synonyms" beside "words", a color that is none.
    """
    if not isinstance(item, Mapping):
        words = clean_words(item.split("|") if isinstance(item, str) else [item], where)
        return Entry(words[0], words)
    check_keys(item, CLASS_KEYS, where)
    if "name" not in item:
        raise ValueError(f"{where} has no 'name': {dict(item)!r}. A class is a name or {{name, synonyms, color}}.")
    if "synonyms" in item and "words" in item:
        raise ValueError(
            f"{where} has both 'synonyms' and 'words'. Keep one: synonyms are encoded beside the name, words instead."
        )
    name = clean_name(item["name"], f"the name of {where}")
    words = item.get("words", item.get("synonyms")) or []
    words = [words] if isinstance(words, str) else words
    if not isinstance(words, (list, tuple)):
        raise ValueError(f"the synonyms of {where} must be a list of words, got {words!r}.")
    words = clean_words(words if "words" in item else [name, *words], f"a word of {where}")
    color = item.get("color")
    return Entry(name, words, None if color is None else as_color(color, name))


def check_keys(spec: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raise ``ValueError`` for a key that is not known."""
    for key in spec:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ValueError(f"{where} has an unknown key {key!r}. {hint}Known: {', '.join(known)}.")
