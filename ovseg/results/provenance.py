"""What a result was made with: one frozen value, the same for every engine, every file and every ``--resume``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ovseg.compat.former_names import SCORERS, current
from ovseg.pictures.identity import PictureFile, file_hash
from ovseg.registry import normalize_name

PARTS = ("method", "options", "scorer", "weights", "vocabulary_hash", "fingerprint", "picture")
"""What decides whether two results are the same; ``protocol`` is what ``fingerprint`` stands for."""


@dataclass(frozen=True)
class Weights:
    """Which weights.

    name      as the user may type it again
    hash      of the tensors
    identity  of everything that changes an embedding
    trained   a checkpoint that was loaded over them
    """

    name: str
    hash: str = ""
    identity: str = ""
    trained: "Weights | None" = None

    def __str__(self) -> str:
        own = f"{self.name} ({self.hash})" if self.hash else self.name
        return own if self.trained is None else f"{own} + {self.trained}"

    @property
    def key(self) -> tuple[str, ...]:
        """What must be equal for two to be the same: names and folders of files do not count."""
        return (self.identity or self.name, *(self.trained.key if self.trained else ()))

    def to_dict(self) -> dict[str, Any]:
        own = {"name": self.name, "hash": self.hash, "identity": self.identity}
        return own | ({"trained": self.trained.to_dict()} if self.trained else {})

    @classmethod
    def parse(cls, record: "Mapping | str | None") -> "Weights | None":
        """From ``to_dict``, or from the text ``name (hash) + name (hash)`` of earlier files."""
        if not record:
            return None
        if isinstance(record, str):
            first, _, rest = record.partition(" + ")
            match = re.fullmatch(r"(.*?)(?: \((\w*)\))?", first, re.DOTALL)
            name, digits = match.groups() if match else (first, "")
            return cls(name, digits or "", digits or "", cls.parse(rest))
        trained = cls.parse(record.get("trained"))
        return cls(str(record["name"]), str(record["hash"]), str(record["identity"]), trained)


RUNNING = Weights("a run that goes on")
"""Stands for a checkpoint while there is none: the model trains."""


def tower_weights(card, trained: Weights | None = None) -> Weights:
    """Of a tower, by its card."""
    return Weights(card.name, card.hash, card.identity or card.hash, trained)


def checkpoint_weights(path: str | Path, tensors: str) -> Weights:
    """Of a checkpoint file whose tensors have this hash."""
    return Weights(Path(path).name, tensors, tensors)


@dataclass(frozen=True)
class Provenance:
    """What a result was made with.

    method           its ``name``
    options          those of the method that were given, plain JSON values
    scorer           name and options of the scorer; None where there is none
    weights          of the tower, and a checkpoint over it
    vocabulary_hash  of the words
    protocol         settings between the picture and the result, plain JSON values
    fingerprint      of those settings that can change a result; empty where they were changed afterwards
    picture          the file; None for pictures in memory, and for what is common to several
    """

    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    scorer: Mapping[str, Any] | None = None
    weights: Weights | None = None
    vocabulary_hash: str | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    picture: PictureFile | None = None

    def of(self, picture: PictureFile | None) -> "Provenance":
        """The same for a picture."""
        return replace(self, picture=picture)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; every file of results holds them under these keys."""
        return {
            "method": self.method,
            "options": dict(self.options),
            "scorer": None if self.scorer is None else dict(self.scorer),
            "weights": None if self.weights is None else self.weights.to_dict(),
            "vocabulary_hash": self.vocabulary_hash,
            "protocol": dict(self.protocol),
            "fingerprint": self.fingerprint,
            "picture": None if self.picture is None else self.picture.to_dict(),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Provenance":
        """From ``to_dict``, also out of a file that holds more.

        Earlier files have fewer keys: a fingerprint inside ``protocol``, weights as text, no picture.

        Raises:
            TypeError, KeyError, ValueError, AttributeError: other types.
        """
        protocol = current(dict(record.get("protocol") or {}))
        fingerprint = str(protocol.pop("fingerprint", "") or "")
        words = record.get("vocabulary_hash", record.get("vocabulary"))
        scorer = record.get("scorer")
        if scorer is not None:
            scorer = current(dict(scorer))
            if "name" in scorer:
                scorer["name"] = SCORERS.get(scorer["name"], scorer["name"])
        return cls(
            method=str(record.get("method") or ""),
            options=current(dict(record.get("options") or {})),
            scorer=scorer,
            weights=Weights.parse(record.get("weights")),
            vocabulary_hash=words if isinstance(words, str) else None,
            protocol=protocol,
            fingerprint=str(record.get("fingerprint") or fingerprint),
            picture=PictureFile.from_dict(record["picture"]) if record.get("picture") else None,
        )

    def differences(self, other: "Provenance") -> list[str]:
        """Which of ``PARTS`` differ, or are unknown; empty if the results must be the same."""
        return [part for part in PARTS if not _same(part, getattr(self, part), getattr(other, part))]


def merge_provenance(several: Sequence[Provenance], vocabulary_hash: str | None) -> Provenance:
    """Of a result put together from others, one or more: what they agree in, and all of them in
    ``protocol["merged"]`` where they differ."""
    first = several[0]
    if all(each == first for each in several):
        return first
    agreed = {part: getattr(first, part) for part in ("options", "scorer", "weights", "picture")}
    for each in several[1:]:
        agreed = {part: value for part, value in agreed.items() if getattr(each, part) == value}
    protocol = dict(first.protocol)
    for each in several[1:]:
        protocol = {name: value for name, value in protocol.items() if each.protocol.get(name) == value}
    return Provenance(
        method=" + ".join(dict.fromkeys(each.method for each in several)),
        vocabulary_hash=vocabulary_hash,
        protocol=protocol | {"merged": [each.to_dict() for each in several]},
        **agreed,
    )


def _same(part: str, one, other) -> bool:
    if part == "method":
        return normalize_name(one) == normalize_name(other)
    if part == "fingerprint":
        return one == other != ""
    if part == "weights" and one and other:
        return one.key == other.key
    if part == "picture" and one and other:
        return one.is_same(other)
    if part in ("options", "scorer"):
        return _listed(one) == _listed(other)
    return one == other


def plain(value: Any) -> Any:
    """A value of a config as JSON can hold it: files by their name and the hash of their bytes, objects by their
    class."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (str, Path)):
        path = Path(value)
        return {"file": path.name, "hash": _hash(path, path.stat().st_mtime_ns)} if _is_file(path) else str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return type(value).__name__


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is too long for a file name, or holds a null byte
        return False


@lru_cache
def _hash(path: Path, changed: int) -> str:
    return file_hash(path)[1]


def _listed(value: Any) -> Any:
    """As JSON gives it back, without the names of files."""
    if isinstance(value, Mapping):
        named = {"hash"} == value.keys() - {"file"} and "file" in value
        return {key: _listed(item) for key, item in value.items() if not (named and key == "file")}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


class ProvenanceMixin:
    """A result that holds what it was made with."""

    provenance: Provenance

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.provenance.method

    @property
    def weights(self) -> str:
        """Name and hash of the weights; empty where they are unknown."""
        return str(self.provenance.weights or "")

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Settings of the prediction, plain JSON values."""
        return self.provenance.protocol
