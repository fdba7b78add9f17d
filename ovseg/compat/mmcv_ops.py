"""A stand-in for mmcv's compiled extension ``mmcv._ext``, so that MMSegmentation and MMDetection run on pure wheels.

``mmcv.ops`` looks up its operators by name on import, and calls few of them.  The stand-in provides every
name: the operators in ``ext_ops.py`` work, all others raise an error when they are called.  It must be installed
before the first import of ``mmcv.ops``: many modules of MMSegmentation and MMDetection replace a failed import by
``None`` or by a placeholder that raises, for good.
"""

import importlib.util
import sys
import warnings
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

NAME = "mmcv._ext"


class StandIn(ModuleType):
    """``mmcv._ext`` without compiled code; attributes are found, and PyTorch is loaded, at the first look-up."""

    def __init__(self):
        super().__init__(NAME, __doc__)
        self.__spec__ = ModuleSpec(NAME, loader=None, origin=__name__)

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")
        from .ext_ops import OPERATORS

        operator = OPERATORS.get(name) or missing(name)
        setattr(self, name, operator)
        return operator


def missing(name: str):
    """A function that raises an error with the name of the missing operator and the remedy."""

    def operator(*args, **kwargs):
        raise RuntimeError(
            f"this model calls mmcv's compiled operator {name!r}, which ovseg's stand-in for {NAME} does not provide: "
            f"choose a model or config without it, or install an mmcv with compiled operators for this PyTorch "
            f'(`python -c "import torch, {NAME}"` then works, and ovseg steps aside)'
        )

    operator.__name__ = name
    return operator


def mmcv_ops_kind() -> str:
    """Where the operators of mmcv come from: ``"compiled"``, ``"stand-in"``, ``"none"``, or ``"no mmcv"``.

    Nothing is imported: a compiled extension is detected by its file and may still fail to load.
    """
    loaded = sys.modules.get(NAME)
    if loaded is not None:
        return "stand-in" if isinstance(loaded, StandIn) else "compiled"
    try:
        spec = importlib.util.find_spec("mmcv")
    except ValueError:  # a module without a spec, as tests put in place
        spec = None
    if spec is None or not spec.submodule_search_locations:
        return "no mmcv"
    return "compiled" if PathFinder.find_spec(NAME, list(spec.submodule_search_locations)) else "none"


def install_mmcv_ops() -> str:
    """Put the stand-in at ``sys.modules["mmcv._ext"]`` unless mmcv is absent or has compiled operators.

    Returns what :func:`mmcv_ops_kind` says afterwards; calling it again changes nothing.

    Raises RuntimeError if ``mmcv.ops`` was imported before, without operators.  Warns if modules of MMSegmentation or
    MMDetection were: they keep their placeholders and fail only when an operator is used.
    """
    if mmcv_ops_kind() == "none":
        if "mmcv.ops" in sys.modules:
            raise RuntimeError(
                "mmcv.ops was imported before ovseg, from an mmcv without compiled operators, and cannot be repaired "
                "in this process: restart Python and write `import ovseg` above every import of mmcv, mmseg and mmdet"
            )
        sys.modules[NAME] = StandIn()
        early = early_imports()
        if early:
            more = f" and {len(early) - 2} more" if len(early) > 2 else ""
            warnings.warn(
                f"{', '.join(early[:2])}{more} were imported before ovseg, without the operators of mmcv, and keep "
                "placeholders that fail when used: write `import ovseg` above every import of mmcv, mmseg and mmdet",
                RuntimeWarning,
                stacklevel=3,
            )
    return mmcv_ops_kind()


def early_imports() -> list[str]:
    """Names of the loaded modules of MMSegmentation and MMDetection whose source asks for ``mmcv.ops``."""
    names = []
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None) if name.startswith(("mmseg.", "mmdet.")) else None
        if file and Path(file).suffix == ".py" and "from mmcv.ops" in Path(file).read_text(encoding="utf-8"):
            names.append(name)
    return names
