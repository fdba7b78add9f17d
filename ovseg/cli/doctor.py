"""``ovseg doctor``."""

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from ovseg.compat.versions import report

IMPORTS = ("torch", "torchvision", "open_clip", "timm", "cv2", "mmengine")
IMPORTS_MM = ("mmcv", "mmseg", "mmdet")


def doctor():
    """Versions, devices, caches; what does not work and what to type; exit code 1 if something is broken.

    Tries each import and one prediction with the embedded model.
    """
    from ovseg import __version__

    print(f"ovseg {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    broken = list(_packages())
    for check in (_imports, _devices, _caches, _prediction):
        broken += _guarded(check)
    if broken:
        print(f"{len(broken)} problem(s):", *broken, sep="\n")
        sys.exit(1)
    print("everything works")


def _packages() -> Iterator[str]:
    """Print a line per package; yield the lines that tell of a problem."""
    for row in report():
        print(f"{row.package:24} {row.installed:20} tested with {row.tested:14} {row.note}")
        if not row.note.startswith("ok") and row.package != "operators of mmcv":
            yield f"{row.package}: {row.note}"


def _guarded(check: Callable[[], Iterator[str]]) -> list[str]:
    """The problems that a check yields, and what stopped it if it could not finish."""
    problems = []
    try:
        problems.extend(check())
    except Exception as error:  # a doctor must survive whatever a broken installation raises
        problems.append(f"{check.__name__.strip('_')}: {_first_line(error)}")
    return problems


def _imports() -> Iterator[str]:
    from ovseg.compat.versions import installed_version

    names = IMPORTS + (IMPORTS_MM if installed_version("onedl-mmcv") else ())
    for name in names:
        try:
            import_module(name)
        except Exception as error:
            yield f"import {name} fails: {_first_line(error)}"


def _devices() -> Iterator[str]:
    import torch

    print(f"processors: {os.cpu_count()}; PyTorch uses {torch.get_num_threads()} thread(s)")
    if torch.cuda.is_available():
        print(f"CUDA: {torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}; --device auto takes the first")
    elif torch.backends.mps.is_available():
        print("Apple MPS: available; --device auto takes it")
    else:
        print("no GPU is visible: --device auto takes the CPU, which works; a smaller --short-side is faster")
    yield from ()


def _caches() -> Iterator[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    from ovseg.text.cache import default_cache_folder

    for what, variable, folder in (
        ("text embeddings", "OVSEG_CACHE", default_cache_folder()),
        ("downloaded weights", "HF_HOME", Path(HF_HUB_CACHE)),
    ):
        size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.exists() else 0
        print(f"{what}: {folder} ({size / 2**20:.1f} MB)")
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError:
            yield f"{what}: {existing} is not writable: export {variable}=FOLDER names one that is"
    offline = [name for name in ("OVSEG_OFFLINE", "HF_HUB_OFFLINE") if os.environ.get(name)]
    if offline:
        print(f"offline mode is on ({', '.join(offline)}): weights that are not here are not fetched")


def _prediction() -> Iterator[str]:
    import numpy as np

    from ovseg.apis.load import load

    result = load("naclip", classes=["sky", "grass"], device="cpu", cache=False)(np.full((64, 64, 3), 128, np.uint8))
    print(f"one prediction with the embedded model: {result.labels.shape[1]} × {result.labels.shape[0]} labels")
    yield from ()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
