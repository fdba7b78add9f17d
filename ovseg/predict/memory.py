"""Bytes: as people write them, and how many this process holds."""

import os
import re
import sys
from pathlib import Path

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def read_bytes(text: str | int) -> int:
    """Bytes of ``"2GB"``, ``"800 MB"``, ``"1.5GiB"`` or a plain number; letter case is ignored.

    Raises:
        ValueError: anything else, or less than one byte.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", str(text).lower())
    size = int(float(found[1]) * UNITS[found[2] or ""]) if found else 0
    if size < 1:
        raise ValueError(f"an amount of memory is written 2GB, 800MB, 1.5GiB or as a number of bytes, got {text!r}.")
    return size


def as_text(size: int) -> str:
    """``"1.31 GB"``, ``"640 MB"``: rounded up, so that what it says is enough."""
    if size >= 10**9:
        return f"{-(-size // 10**7) / 100:.2f} GB"
    return f"{-(-size // 10**6)} MB"


def resident() -> int:
    """Bytes of memory that this process has now; where the system does not tell, the most it has had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
