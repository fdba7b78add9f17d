"""Whether a file of results is as ovseg wrote it: a checksum of what it says, and files that lie beside it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovseg.compat.untrusted import refuse, shown
from ovseg.files import json_text

from .provenance import Provenance

SEALED = {
    *Provenance().to_dict(),
    *("format", "format_version", "files", "names", "colors", "vocabulary", "vocabulary_hash"),
    *("image", "classes", "unlabeled", "invalid"),
    *("images", "categories", "annotations"),
}
"""Keys that the checksum covers; others may be added by whoever wants."""


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the checksum of what it says."""
    return {**record, "checksum": _checksum(json.loads(json_text(record, indent=None)))}


def check_seal(record: Mapping[str, Any]) -> None:
    """Raise ValueError for a record that is no longer as it was sealed; those of early versions have no seal."""
    if "checksum" in record and record["checksum"] != _checksum(record):
        raise ValueError(
            "it does not say any more what was written into it (its checksum differs). To read it nevertheless, remove "
            "its key 'checksum'"
        )


def file_beside(record: Mapping[str, Any], kind: str, folder: Path) -> Path | None:
    """The file of a kind that a record in a folder names; None if it names none.

    Raises:
        ValueError: what it names is no file name, or has a folder in it.
    """
    files = record.get("files", {})
    if not isinstance(files, Mapping):
        refuse("files", "a mapping from kinds to file names", files)
    if kind not in files:
        return None
    name = files[kind]
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0:"):
        raise ValueError(f"files.{kind} is {shown(name)}; expected the name of a file beside it, without a folder")
    return folder / name


def _checksum(record: Mapping[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key in SEALED}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
