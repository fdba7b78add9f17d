"""Keys and names as earlier files spell them.

Files written today use American spelling.  Weights, checkpoints, results and vocabularies written before are read
through the tables of this module; digests of settings are computed with the former names, so that a fingerprint means
the same in all files.
"""

from collections.abc import Mapping
from typing import Any

KEYS = {"normalisation": "normalization", "licence": "license", "unlabelled": "unlabeled"}
"""Keys of protocols, vocabularies and results: former → current."""
TYPES = {"CentredScore": "CenteredScore", "FoundScore": "ForegroundScore"}
"""Values of ``type``: former → current."""
SCORERS = {"found": "foreground"}
"""Names of scorers as results record them: former → current."""
_FORMER_KEYS, _FORMER_TYPES = ({new: old for old, new in table.items()} for table in (KEYS, TYPES))


def current(value: Any) -> Any:
    """A value from a file with the current keys and types, at every depth.

    Raises:
        ValueError: a mapping has a key in both spellings.
    """
    return _renamed(value, KEYS, TYPES)


def current_keys(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping from a file with the current keys; its values stay as they are.

    Raises:
        ValueError: a key in both spellings.
    """
    _check_once(mapping, KEYS)
    return {KEYS.get(key, key): item for key, item in mapping.items()}


def former(value: Any) -> Any:
    """The inverse of ``current``: what digests are computed from."""
    return _renamed(value, _FORMER_KEYS, _FORMER_TYPES)


def _renamed(value: Any, keys: dict[str, str], types: dict[str, str]) -> Any:
    if isinstance(value, dict):
        _check_once(value, keys)
        renamed = {keys.get(key, key): _renamed(item, keys, types) for key, item in value.items()}
        kind = renamed.get("type")
        if isinstance(kind, str):
            scope, dot, name = kind.rpartition(".")
            renamed["type"] = f"{scope}{dot}{types.get(name, name)}"
        return renamed
    return type(value)(_renamed(item, keys, types) for item in value) if type(value) in (list, tuple) else value


def _check_once(mapping: Mapping[str, Any], keys: dict[str, str]):
    for key in mapping:
        if key in keys and keys[key] in mapping:
            raise ValueError(f"{key!r} and {keys[key]!r} are two spellings of one key; only one may be set.")
