"""One process at a time: a lock that names its owner and ends with it, however the owner ends."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ovseg.files import is_running

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # modules have no type that None is part of


class LockedError(ValueError):
    """Another process is at it."""


@contextmanager
def locked(path: str | Path, what: str) -> Iterator[None]:
    """Hold the lock file ``path``, in which the process id of its owner stands; it is removed afterwards.

    The system releases the lock of a process that was killed, so what it left is taken over.  On disks without such
    locks the process id decides.

    Args:
        path: in a folder that is there.
        what: is being done, for the message: "the labels of scene.tif are".

    Raises:
        LockedError: another process, or another thread of this one, holds it.
        OSError: the file cannot be made, or is a link.
    """
    path, owner = Path(path), {"pid": os.getpid(), "host": socket.gethostname()}
    handle = _open(path)
    try:
        if not _take(handle, path, owner):
            raise _refusal(handle, path, what)
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(owner).encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock goes: whoever waits sees that its file is gone
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0), 0o644)


def _take(handle: int, path: Path, owner: dict) -> bool:
    """Whether the lock is ours now."""
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a disk without locks
            return _is_abandoned(handle, owner)
        return _is_at(handle, path)
    return _is_abandoned(handle, owner)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file still has this name: a former owner may have removed it in between."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _is_abandoned(handle: int, owner: dict) -> bool:
    holder = _holder(handle)
    return not holder or (holder.get("host") == owner["host"] and not is_running(int(holder.get("pid", 0))))


def _holder(handle: int) -> dict:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        holder = json.loads(os.read(handle, 1000))
        return holder if isinstance(holder, dict) and isinstance(holder.get("pid"), int) else {}
    except ValueError:
        return {}


def _refusal(handle: int, path: Path, what: str) -> LockedError:
    holder = _holder(handle)
    who = f"process {holder['pid']} of {holder.get('host')}" if holder else "another process"
    return LockedError(
        f"{what} being written by {who}: two at once would spoil each other's work. Wait until it is done, or give "
        f"another folder. (The lock is {path}; that of a process that was killed is taken over.)"
    )
