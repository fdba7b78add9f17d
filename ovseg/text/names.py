"""How class names are cleaned, compared and looked up."""

import unicodedata
from collections.abc import Iterable
from typing import Any


def clean_name(value: Any, where: str) -> str:
    """The name in NFC without outer and with single inner spaces; any script and emoji are kept.

    Args:
        value: what was given as a name.
        where: how an error calls it, for example "item 3" or "line 3 of words.txt".

    Raises:
        ValueError: not text, or nothing visible in it.
    """
    if not isinstance(value, str):
        hint = " (YAML reads a bare yes, no, on, off as true or false)" if isinstance(value, bool) else ""
        raise ValueError(
            f"{where} is {value!r} of type {type(value).__name__}{hint}, but a name must be text. Put it in quotes."
        )
    name = " ".join(unicodedata.normalize("NFC", value).split())
    if all(unicodedata.category(char)[0] in "CZ" for char in name):
        raise ValueError(f"{where} is blank: {value!r}. Remove it, or write a name that can be seen.")
    return name


def clean_words(values: Iterable[Any], where: str) -> tuple[str, ...]:
    """Each value through ``clean_name``; a word repeated within the list is kept once."""
    words: dict[str, str] = {}
    for value in values:
        word = clean_name(value, where)
        words.setdefault(fold(word), word)
    return tuple(words.values())


def fold(name: str) -> str:
    """Key under which two names count as the same."""
    return unicodedata.normalize("NFC", " ".join(name.split()).casefold())
