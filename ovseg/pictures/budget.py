"""Whether a picture fits into memory, asked before it is decoded."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .errors import ImageError


class OverBudgetError(ImageError):
    """The picture would take more memory than there is."""


SHARE = 0.8
"""Part of the free memory that one picture may take."""

READING = 16
"""Bytes per pixel that reading takes: four as Pillow holds it, and as many for each of a few conversions."""


def check_budget(height: int, width: int, what: str, per_pixel: float = READING):
    """Raise ImageError if a picture of this size would take more than ``SHARE`` of the memory that is free.

    Args:
        what: names the picture.
        per_pixel: bytes that it takes at its peak, reading and what is done with it then.
    """
    need, free = height * width * per_pixel, available()
    if free is not None and need > SHARE * free:
        raise over_budget(what, f"{width} x {height} pixels would take about {need / 1e9:.3g} GB of memory", free)


def over_budget(what: str, reason: str = "", free: int | None = None) -> OverBudgetError:
    """The error of a picture that does not fit; also for memory that ran out on the way."""
    reason = reason or "memory ran out while it was worked on"
    of = "" if free is None else f", of which {max(free, 0) / 1e9:.3g} GB are free"
    return OverBudgetError(
        f"{what} is too large to be worked on whole: {reason}{of}. Segment it by window (ovseg predict … --memory 2GB "
        "--refine none), or shrink it or cut it into tiles."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out: Python's, or one of torch for a processor or another device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def available() -> int | None:
    """Bytes that this process may still take: the least of what the system has, what its control group allows, and what
    its own limit (``ulimit -v``) leaves; None where nothing reports it."""
    sizes = [*_system(), *_groups(), *_own_limit()]
    return max(0, min(sizes)) if sizes else None


def _system() -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
                return
    with suppress(OSError, ValueError, AttributeError):  # macOS: all of it, because free memory is not reported
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups() -> Iterator[int]:
    """Control groups of Linux, both versions; files that were read and can be dropped do not count."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, name = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root = Path("/sys/fs/cgroup/memory" if kinds else "/sys/fs/cgroup")
            limit, usage, inactive = (
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                if kinds
                else ("memory.max", "memory.current", "inactive_file")
            )
            own = root / name.lstrip("/")
            for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(root))):
                with suppress(OSError, ValueError):
                    most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
                    rows = (row.split() for row in (folder / "memory.stat").read_text().splitlines())
                    yield most - used + next((int(row[1]) for row in rows if row[0] == inactive), 0)


def _own_limit() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    with suppress(OSError, ValueError):
        if most != resource.RLIM_INFINITY:
            yield most - int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
