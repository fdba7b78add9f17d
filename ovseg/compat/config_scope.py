"""``ovseg::naclip/naclip_tiny.py``: ovseg's configs as MMEngine names those of a package.

MMEngine reads the configs of the packages in its own table from ``<package>/.mim/configs``.  ``announce`` adds ovseg to
that table, so that ``_base_ = "ovseg::…"``, ``mmengine.hub.get_config("ovseg::…")`` and ``Config.fromfile`` find them.
It also lets ``read_base`` import ``ovseg.configs.naclip.naclip_tiny``, although that file inherits by ``_base_``, which
MMEngine's own ``read_base`` does not follow.  Nothing is imported for it: until MMEngine is loaded, the table can wait.
"""

import sys
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path

from ovseg.spelling import did_you_mean

PACKAGE = "ovseg"
CONFIGS = Path(__file__).parents[1] / "configs"
TABLE = "mmengine.config.utils"  # where MMEngine keeps its packages
READER = "mmengine.config.config"  # where it reads files


def config_files() -> dict[str, Path]:
    """The configs of the package by their names, ``naclip_tiny``; base files are left out."""
    return {path.stem: path for path in sorted(CONFIGS.glob("[!_]*/*.py"))}


def find_config(name: str | Path) -> Path:
    """The file that a config's name means.

    Args:
        name: a file; ``ovseg::naclip/naclip_tiny.py``; the name of a config of the package, ``naclip_tiny``; or its
            place in the repository, ``configs/naclip/naclip_tiny.py``, from any folder.

    Raises:
        FileNotFoundError: there is none, with the nearest names.
    """
    path, own = Path(name), config_files()
    if path.is_file():
        return path
    inside = str(name).removeprefix(f"{PACKAGE}::").removeprefix("configs/")
    for candidate in (CONFIGS / inside, own.get(path.stem if path.suffix == ".py" else str(name))):
        if candidate and candidate.suffix == ".py" and CONFIGS in candidate.parents and candidate.is_file():
            return candidate
    beside = [each.name for each in path.parent.glob("*.*")] if path.parent.is_dir() else []
    guess = did_you_mean(path.name, beside) or did_you_mean(path.stem, own)
    raise FileNotFoundError(
        f"No config file '{name}', and no config of that name in the package. {guess}Give the path of a .py, .json or "
        ".yaml config, or a name that `ovseg configs` lists."
    )


def announce() -> None:
    """Complete MMEngine's table of packages, now or when MMEngine is first imported."""
    for name, complete in COMPLETE.items():
        if name in sys.modules:
            complete(sys.modules[name])
    if not set(COMPLETE) <= set(sys.modules) and not any(isinstance(each, _Finder) for each in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _complete_table(module) -> None:
    module.MODULE2PACKAGE.setdefault(PACKAGE, PACKAGE)


def _complete_reader(module) -> None:
    config = module.Config
    parse = config._parse_lazy_import

    @wraps(parse)
    def parse_lazy_import(filename: str):
        if CONFIGS not in Path(filename).absolute().parents or config._is_lazy_import(filename):
            return parse(filename)
        lazy, module.ConfigDict.lazy = module.ConfigDict.lazy, False
        try:
            values = config.fromfile(filename).to_dict()
        finally:
            module.ConfigDict.lazy = lazy
        return config._dict_to_config_dict_lazy(values), set()

    config._parse_lazy_import = staticmethod(parse_lazy_import)


COMPLETE = {TABLE: _complete_table, READER: _complete_reader}


class _Finder(MetaPathFinder):
    """Steps in between for the modules of ``COMPLETE``, and loads them as they are."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in COMPLETE:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others if hasattr(finder, "find_spec"))
        spec = next(filter(None, specs), None)
        if spec is not None:
            spec.loader = _Loader(spec.loader, COMPLETE[fullname])
        return spec


class _Loader(Loader):
    """A loader that completes its module once it has run."""

    def __init__(self, loader, complete):
        self.loader, self.complete = loader, complete

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        self.complete(module)
