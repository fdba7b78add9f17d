"""The words of the composed scenes: objects first, then stuff, each with its synonyms (``words.json``)."""

import json
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


@cache
def load_words() -> dict:
    """``{"objects": [...], "stuff": [...]}``; an entry has ``name``, ``synonyms`` and, for objects, ``emoji``."""
    return json.loads((FOLDER / "words.json").read_text(encoding="utf-8"))


def object_names() -> list[str]:
    """Names of the objects, in label order from 0."""
    return [word["name"] for word in load_words()["objects"]]


def stuff_names() -> list[str]:
    """Names of the kinds of stuff, in label order after the objects."""
    return [word["name"] for word in load_words()["stuff"]]


def spellings() -> list[list[str]]:
    """For each label: its name and synonyms."""
    return [[word["name"], *word["synonyms"]] for group in load_words().values() for word in group]
