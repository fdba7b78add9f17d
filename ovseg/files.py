"""Files that are either complete or not there, and the one form of JSON that ovseg writes."""

import json
import math
import os
import re
import secrets
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

DRAFT = re.compile(r"\..*\.ovseg-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}(\.\w+)?")
"""Name of a file that is being written: machine, process id, random digits, suffix."""

DRAFT_SECONDS = 24 * 3600
"""Age at which a draft of another machine counts as abandoned."""

_cleaned: set[Path] = set()


@contextmanager
def atomic_write(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """Yields a path in the same folder to write to; afterwards it becomes ``path`` in one step, or is removed on error.

    Missing parent folders are made.  The yielded path keeps the suffix, which some writers go by.  What killed
    processes left half-written in the folder is removed first.

    Args:
        path: where the file will be.
        durable: whether the content must be on the disk before the name is, so that a power failure cannot part them.
    """
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_drafts(path.parent)
    token = f"ovseg-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
    draft = path.with_name(f".{path.stem[:30]}.{token}{path.suffix}")
    try:
        yield draft
        if durable:
            _sync(draft)
        os.replace(draft, path)
        if durable:
            with suppress(OSError):  # not every system opens folders
                _sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove what processes that are gone left half-written in a folder; each folder once per process."""
    folder = folder.absolute()
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (match := DRAFT.fullmatch(entry.name)) is None:
                continue
            with suppress(OSError):
                own = match[1] == _machine()
                old = time.time() - entry.stat(follow_symlinks=False).st_mtime > DRAFT_SECONDS
                if old or (own and not is_running(int(match[2]))):
                    os.unlink(entry.path)


def is_running(process: int) -> bool:
    """Whether a process of this machine is there; where the system cannot be asked, as if it were."""
    if os.name == "nt":  # signal 0 is Ctrl-C there
        return True
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError, ValueError):
        return False
    return True


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one step, as UTF-8."""
    with atomic_write(path) as draft:
        # A file name that is not UTF-8 reaches us with lone surrogates; as \\udcxx they are valid JSON.
        draft.write_bytes(text.encode("utf-8", "backslashreplace"))


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
