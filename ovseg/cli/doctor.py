"""``ovseg doctor``."""

import os
import platform
from pathlib import Path


def doctor():
    """Versions, devices, caches; what will not work and what to type."""
    from rich.console import Console
    from rich.table import Table

    from ovseg import __version__
    from ovseg.compat.versions import report

    console = Console()
    console.print(f"ovseg {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    table = Table("package", "installed", "tested with", "note")
    for row in report():
        table.add_row(*(str(cell) for cell in row))
    console.print(table)
    for line in (*_devices(), *_caches()):
        console.print(line, highlight=False)


def _devices():
    import torch

    yield f"processors: {os.cpu_count()}, PyTorch uses {torch.get_num_threads()} thread(s)"
    if torch.cuda.is_available():
        yield f"CUDA: {torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}; --device auto takes the first"
    elif torch.backends.mps.is_available():
        yield "Apple MPS: available; --device auto takes it"
    else:
        yield "no GPU is visible: --device auto takes the CPU, which works (smaller --short-side is faster)"


def _caches():
    from huggingface_hub.constants import HF_HUB_CACHE

    from ovseg.text.cache import default_cache_folder

    for what, folder in (("text embeddings", default_cache_folder()), ("downloaded weights", Path(HF_HUB_CACHE))):
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.exists() else 0
        writable = os.access(next(p for p in (folder, *folder.parents) if p.exists()), os.W_OK)
        note = "" if writable else "; not writable: set OVSEG_CACHE or HF_HOME to a folder that is"
        yield f"{what}: {folder} ({size / 2**20:.1f} MB{note})"
    offline = [name for name in ("OVSEG_OFFLINE", "HF_HUB_OFFLINE") if os.environ.get(name)]
    if offline:
        yield f"offline mode is on ({', '.join(offline)}): weights that are not here are not fetched"
