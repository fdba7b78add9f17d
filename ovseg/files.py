"""Files that are either complete or not there, and the one form of JSON that ovseg writes."""

import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a path in the same folder to write to; afterwards it becomes ``path`` in one step, or is removed on error.

    Missing parent folders are made.  The yielded path keeps the suffix, which some writers go by.
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one step, as UTF-8."""
    with atomic_write(path) as part:
        # A file name that is not UTF-8 reaches us with lone surrogates; as \\udcxx they are valid JSON.
        part.write_bytes(text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, content: Any) -> None:
    """Write ``json_text`` of a value in one step."""
    write_text(path, json_text(content) + "\n")


def json_text(content: Any, indent: int | None = 1) -> str:
    """JSON of a value; names stay readable in any script.

    Tuples and arrays become lists, NaN and infinity null, what JSON cannot hold otherwise its ``str``.

    Args:
        indent: spaces per level; None for a single line.
    """
    return json.dumps(_plain(content), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)  # arrays and numbers of NumPy and torch
