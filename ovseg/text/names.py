"""How class names are cleaned, compared and looked up."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

# soft hyphen, zero-width space, marks of the direction of writing, word joiner, byte order mark
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
# joiners of which emoji, Persian and Indic scripts are made, where they do not stand between two letters of these
_BESIDE = r"[^\x00-\x7f\u200c\u200d\s]"
_LOOSE_JOINER = re.compile(rf"(?<!{_BESIDE})[\u200c\u200d]|[\u200c\u200d](?!{_BESIDE})")


def visible(text: str) -> str:
    """The text without characters that nobody sees."""
    return text if text.isascii() else _LOOSE_JOINER.sub("", _INVISIBLE.sub("", text))


def clean_name(value: Any, where: str) -> str:
    """The name in NFC without outer and with single inner spaces, and without characters that nobody sees; any script
    and emoji are kept.

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
    name = " ".join(unicodedata.normalize("NFC", visible(value)).split())
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


def shortened(text: str) -> str:
    """The beginning of a text, for messages."""
    return text if len(text) < 60 else text[:57] + "…"


def natural(word: str) -> str:
    """The word as one would say it: ``traffic_light`` is "traffic light"."""
    return " ".join(word.replace("_", " ").split()) or word


def fold(name: str) -> str:
    """Key under which two names count as the same."""
    return unicodedata.normalize("NFC", " ".join(name.split()).casefold())
