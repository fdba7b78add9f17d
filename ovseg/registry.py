"""The registries of ovseg: where a config's ``type='...'`` becomes a class.

Every registry has the scope ``ovseg`` and a list of modules that are imported when somebody first asks it for a name,
so that importing this file costs no more than MMEngine's own registry (no torch, no models).  ``ovseg.dense.*`` stands
for all modules of a package, so a new file in it is known without being listed anywhere.

=============================  ==========================================  ====================================
Registry                       holds                                       root
=============================  ==========================================  ====================================
TOWERS DENSE SCORERS REFINERS  image towers, dense extractors, scorers,    ovseg itself (training-free use needs
TUNING PROXIES MASKS           refiners, what trains, proxies, masks       neither mmseg nor mmdet)
LOADERS                        what runs a trained model from its file     ovseg itself
MODELS                         segmentors, detectors, heads, necks         mmengine ``MODELS``
DATASETS TRANSFORMS METRICS    what a config names under these keys        the mmengine registry of that name
HOOKS LOOPS DATA_SAMPLERS
RUNNERS EVALUATORS
OPTIM_WRAPPER_CONSTRUCTORS
=============================  ==========================================  ====================================

An unknown name or argument is answered with the nearest one that exists; ``names(DENSE)`` lists what there is.
"""

import inspect
import pkgutil
import re
import warnings
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from mmengine import registry as mmengine_registry

from .spelling import did_you_mean, nearest

SCOPE = "ovseg"
NEIGHBORS = ("mmseg", "mmdet")
LIBRARIES = "mmengine mmcv mmpretrain torch torchvision timm functools builtins".split()
PACKAGES = (SCOPE, *NEIGHBORS, *LIBRARIES)


class UnknownName(KeyError):
    """A ``KeyError`` that prints as the sentence it carries (a plain one prints the repr)."""

    def __str__(self):
        return self.args[0]


class Registry(mmengine_registry.Registry):
    """An MMEngine registry that explains itself when a name or an argument does not exist.

    Differences to the base class: ``get`` raises instead of returning None; a bare name is never imported as a Python
    module; a location whose import fails (an optional package is missing) hides its own names only; a registry without
    parent ignores the default scope, because no other package can hold dense extractors.
    """

    def __init__(self, name, **kwargs):
        super().__init__(name, scope=SCOPE, **kwargs)
        self._unavailable = {}

    def __contains__(self, key):
        return self.find(key) is not None

    def import_from_location(self):
        """Import the modules that register into this registry, once."""
        if self._imported:
            return
        for location in self._locations:
            package, everything, _ = location.partition(".*")
            for module in submodules(package) if everything else [package]:
                try:
                    import_module(module)
                except ImportError as error:
                    self._unavailable[module] = error
                    if everything:
                        warnings.warn(f"{module} is left out: it could not be imported ({error}).", stacklevel=2)
        self._imported = True

    def find(self, key: str):
        """What ``key`` stands for (``Name``, ``scope.Name`` or ``package.module.Name``), or None."""
        if "." in key:
            try:
                component = super().get(key)
            except (KeyError, RuntimeError):
                return None
            return None if isinstance(component, ModuleType) else component
        self.import_from_location()
        registry = self
        while registry is not None:
            if key in registry.module_dict:
                return registry.module_dict[key]
            registry = registry.parent
        return None

    def get(self, key: str):
        """The class or function registered as ``key``.

        Raises:
            KeyError: nothing has that name. The message names the registry, the nearest names in it, its parents and
                siblings, and the scope to write if the name exists elsewhere.
        """
        component = self.find(key)
        if component is None:
            raise UnknownName(self._explain(key))
        return component

    def build(self, cfg: dict, *args, **kwargs):
        """Build the component a config describes.

        Raises:
            KeyError: its ``type`` is unknown, see ``get``.
            ValueError: an ovseg component does not accept one of the keys; the nearest accepted key is named.
        """
        if isinstance(cfg, dict):
            self.check(cfg)
        return super().build(cfg, *args, **kwargs)

    def check(self, cfg: dict):
        """Raise ``ValueError`` if the ovseg component named by ``cfg['type']`` does not accept a key of ``cfg``.

        Components of other packages are left to Python: some of them swallow keys on purpose.
        """
        component = self._own(cfg.get("type"))
        accepted = None if component is None else accepted_keys(component)
        for key in cfg:
            if accepted is not None and key not in accepted and key not in ("type", "_scope_"):
                raise ValueError(
                    f"{component.__name__} ({self.scope}::{self.name}) has no argument '{key}'. "
                    f"{did_you_mean(key, accepted)}It accepts: {', '.join(accepted) or 'nothing'}."
                )

    @contextmanager
    def switch_scope_and_registry(self, scope):
        """As MMEngine does, for registries in its tree; a registry of ovseg alone stays where it is."""
        if self.parent is None:
            yield self
        else:
            with super().switch_scope_and_registry(scope) as registry:
                yield registry

    def _own(self, kind):
        """The component registered here that a config's ``type`` (name or class) stands for, or None."""
        self.import_from_location()
        if isinstance(kind, str):
            return self.module_dict.get(kind.removeprefix(f"{SCOPE}."))
        return next((component for component in self.module_dict.values() if component is kind), None)

    def _explain(self, key):
        bare = key.rsplit(".", 1)[-1]
        known = {name: self for name in self.module_dict}
        parent = self.parent
        while parent is not None:
            known |= {name: parent for name in parent.module_dict if name not in known}
            parent = parent.parent
        elsewhere = {}
        for sibling in self._siblings():
            elsewhere |= {name: sibling.scope for name in sibling.module_dict if name not in elsewhere}
        text = f"'{key}' is not in the {self.scope}::{self.name} registry. "
        if bare in known:
            text += f"It is registered without that prefix: write '{bare}'. "
        elif bare in elsewhere:
            text += f"It exists in {elsewhere[bare]}: write '{elsewhere[bare]}.{bare}'. "
        else:
            spelled = {name: name for name in known}
            spelled |= {f"{scope}.{name}": name for name, scope in elsewhere.items() if name not in known}
            near = nearest(bare, spelled)
            text += f"Nearest: {', '.join(near)}. " if near else f"It holds: {', '.join(names(self)) or 'nothing'}. "
        for location, error in self._unavailable.items():
            text += f"{location} could not be imported ({error}), so what it registers is missing. "
        return text + "A class of your own must be imported first: custom_imports=dict(imports=['your.module'])."

    def _siblings(self):
        """The registries of the same kind in other packages, filled if those packages can be imported."""
        if self.parent is None:
            return []
        for package in NEIGHBORS:
            try:
                import_module(f"{package}.registry")
            except ImportError:
                continue
        siblings = [child for scope, child in self.root.children.items() if scope != self.scope]
        for sibling in siblings:
            try:
                sibling.import_from_location()
            except Exception as error:  # a broken neighbor must not hide the message being written here
                self._unavailable[f"{sibling.scope} {sibling.name}s"] = error
        return siblings


def submodules(package: str) -> list[str]:
    """Dotted names of the modules in a package, sorted; only the package itself is imported."""
    return sorted(f"{package}.{module.name}" for module in pkgutil.iter_modules(import_module(package).__path__))


def registered_in(package: str, *registries: Registry):
    """A ``__getattr__`` for a package: the classes that its modules register, such as ``ovseg.dense.NACLIP``."""

    def find(name: str):
        if not name.startswith("_") and f"{package}.{name}" not in submodules(package):
            for registry in registries:
                registry.import_from_location()
                for component in registry.module_dict.values():
                    if component.__name__ == name and component.__module__.startswith(f"{package}."):
                        return component
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def normalize_name(name: str) -> str:
    """What all spellings of one name share: ``CLIP-Surgery``, ``clip surgery``, ``clip_surgery`` and ``CLIPSurgery``
    are ``clipsurgery``."""
    return re.sub(r"[-_\s]+", "", name.replace("+", "plus")).casefold()


def component_name(component) -> str:
    """The name of a component, as people type it and as it is recorded: its class attribute ``name``.

    A class without one of its own, such as a variant that a user registered, is named after its class.
    """
    return vars(component).get("name") or component.__name__.lower()


def named(registry: mmengine_registry.Registry) -> dict[str, type]:
    """The components of a registry by their names, sorted; of ``MODELS`` only those that have one."""
    registry.import_from_location()
    components = registry.module_dict.values()
    if registry is MODELS:
        components = [each for each in components if isinstance(vars(each).get("name"), str)]
    return dict(sorted((component_name(each), each) for each in components))


def find_named(registry: mmengine_registry.Registry, name: str) -> type | None:
    """The component of a name in any spelling (``normalize_name``), or of a class name in any; None if unknown."""
    known, wanted = named(registry), normalize_name(name)
    spellings = {normalize_name(kind): registry.module_dict[kind] for kind in names(registry)}
    spellings = {spelling: each for spelling, each in spellings.items() if each in known.values()}
    return (spellings | {normalize_name(each): component for each, component in known.items()}).get(wanted)


def names(registry: mmengine_registry.Registry) -> tuple[str, ...]:
    """The names registered in a registry itself (not in its parents), sorted. Imports what registers them."""
    registry.import_from_location()
    return tuple(sorted(registry.module_dict))


def accepted_keys(component) -> tuple[str, ...] | None:
    """The keyword arguments a class or function accepts, or None if it accepts any.

    ``**kwargs`` of a class is taken to be passed on to the next ``__init__`` of its MRO.
    """
    if not inspect.isclass(component):
        steps = [component]
    else:
        steps = [base.__dict__["__init__"] for base in component.__mro__ if "__init__" in base.__dict__]
    keys: dict[str, None] = {}
    for step in steps:
        try:
            parameters = list(inspect.signature(step).parameters.values())
        except (TypeError, ValueError):
            return None
        parameters = parameters[1:] if inspect.isclass(component) else parameters
        keys |= {p.name: None for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return tuple(keys)
        if step is object.__init__:
            break
    return None


def check_components(cfg, scope: str = SCOPE, path: str = ""):
    """Check every ``dict(type=...)`` inside ``cfg`` that names an ovseg component, before anything is built.

    The runner builds through MMEngine's root registries, which do not call ``Registry.build`` of this file; call this
    on a whole config first. ``scope`` is the config's ``default_scope``: under another one than ``ovseg`` a bare name
    means that package's component, except where only ovseg keeps such components (towers, dense extractors, ...).

    Raises:
        ValueError: no ovseg component of that name accepts the keys; the place in the config is named.
    """
    if isinstance(cfg, dict) and isinstance(cfg.get("type"), str):
        bare = "." not in cfg["type"]
        errors = []
        for registry in ALL:
            foreign = bare and scope != SCOPE and registry.parent is not None
            if foreign or registry._own(cfg["type"]) is None:
                continue
            try:
                registry.check(cfg)
            except ValueError as error:
                errors.append(error)
            else:
                errors = []
                break
        if errors:
            raise ValueError(f"{path or 'config'}: {errors[0]}")
    if isinstance(cfg, (dict, list, tuple)):
        for key, value in cfg.items() if isinstance(cfg, dict) else enumerate(cfg):
            check_components(value, scope, f"{path}.{key}" if path else str(key))


def find_component(kind: str, scope: str | None = None):
    """What ``type=kind`` means in a config with that default scope, searched in all registries; None if unknown."""
    spellings = [kind] if scope in (None, SCOPE) or "." in kind else [f"{scope}.{kind}", kind]
    candidates = (registry.find(spelling) for spelling in spellings for registry in ALL)
    return next((component for component in candidates if component is not None), None)


def registered_by_program(registry: mmengine_registry.Registry, name: str) -> bool:
    """Whether the running program itself, and none of the packages that ovseg stands on, registered a class by this
    very name, in a registry or one above it or beside it.  Nothing is imported for it.

    It is what a name that comes out of a file may stand for beside the fixed lists of ``ovseg.compat.untrusted``.
    """
    family = {id(each): each for each in (registry, *_family(registry))}.values()
    classes = [each.module_dict[name] for each in family if name in each.module_dict]
    return any((getattr(cls, "__module__", None) or "builtins").partition(".")[0] not in PACKAGES for cls in classes)


def _family(registry: mmengine_registry.Registry) -> list[mmengine_registry.Registry]:
    root = registry
    while root.parent is not None:
        root = root.parent
    return [] if root is registry else [root, *root.children.values()]


TOWERS = Registry("tower", locations=["ovseg.towers.*"])
DENSE = Registry("dense extractor", locations=["ovseg.dense.*"])
PROXIES = Registry("proxy", locations=["ovseg.dense.proxies"])
TUNING = Registry("tuning preset", locations=["ovseg.towers.tuning"])
MASKS = Registry("mask source", locations=["ovseg.regions.*"])
SCORERS = Registry("scorer", locations=["ovseg.score.*", "ovseg.catseg"])
REFINERS = Registry("refiner", locations=["ovseg.refine.*"])
LOADERS = Registry("loader of checkpoints", locations=["ovseg.engine.trained_detector"])

LOCATIONS = {
    "MODELS": ["ovseg.segmentors", "ovseg.detectors"],
    "DATASETS": ["ovseg.datasets.register"],
    "TRANSFORMS": ["ovseg.datasets.register"],
    "METRICS": ["ovseg.evaluation.boxes", "ovseg.evaluation.iou", "ovseg.evaluation.localization"],
    "HOOKS": ["ovseg.engine.progress"],
    "LOOPS": ["ovseg.engine.loop"],
    "RUNNERS": ["ovseg.engine.trainer"],
    "DATA_SAMPLERS": ["ovseg.datasets.seeded"],
    "EVALUATOR": ["ovseg.evaluation.side_by_side"],
    "MODEL_WRAPPERS": ["ovseg.engine.frozen"],
    "OPTIM_WRAPPER_CONSTRUCTORS": ["ovseg.engine.layer_decay"],
}
ROOTS = {name: root for name, root in vars(mmengine_registry).items() if isinstance(root, mmengine_registry.Registry)}
# One child for every root, also where ovseg registers nothing: under default_scope = 'ovseg' MMEngine warns otherwise.
CHILDREN = {name: Registry(root.name, parent=root, locations=LOCATIONS.get(name, [])) for name, root in ROOTS.items()}

MODELS = CHILDREN["MODELS"]
DATASETS = CHILDREN["DATASETS"]
TRANSFORMS = CHILDREN["TRANSFORMS"]
METRICS = CHILDREN["METRICS"]
EVALUATORS = CHILDREN["EVALUATOR"]
HOOKS = CHILDREN["HOOKS"]
LOOPS = CHILDREN["LOOPS"]
RUNNERS = CHILDREN["RUNNERS"]
DATA_SAMPLERS = CHILDREN["DATA_SAMPLERS"]
MODEL_WRAPPERS = CHILDREN["MODEL_WRAPPERS"]
OPTIM_WRAPPER_CONSTRUCTORS = CHILDREN["OPTIM_WRAPPER_CONSTRUCTORS"]

ALL = (TOWERS, TUNING, DENSE, PROXIES, MASKS, SCORERS, REFINERS, *CHILDREN.values())
