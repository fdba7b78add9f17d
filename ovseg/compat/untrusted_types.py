"""The components that a file may name as a ``type``.

A ``type`` in a file is never a dotted name and never imports anything: it names

*   a component of ovseg on the list ``ALLOWED``, whose options are typed by the signature of its class, or
*   a class that the running program registered itself, with plain values.

Options that would open a file or fetch weights are on no list.
"""

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ovseg.registry import DENSE, MASKS, PROXIES, REFINERS, Registry, registered_by_program
from ovseg.spelling import did_you_mean

from .untrusted import Check, either, flag, listed, mapping, nothing, number, plain, refuse, shown, text, whole

ALLOWED = {
    REFINERS: ("ClusterVote", "GuidedUpsampling", "MaskVote", "MeanFieldCRF", "PAMR"),
    MASKS: ("Superpixels",),
    PROXIES: ("TowerProxy",),
    DENSE: (
        "CATSeg CLIPSelf CLIPSurgery CLIPtrase ClearCLIP CorrCLIP Ensemble GEM MaskCLIP NACLIP PixelCLIP ProxyCLIP "
        "ResCLIP SCLIP Trident Vanilla clip_prs"
    ).split(),
}
NESTED = {  # options that hold a component, or several
    ("MaskVote", "masks"): MASKS,
    ("CorrCLIP", "masks"): MASKS,
    ("CorrCLIP", "proxy"): PROXIES,
    ("ProxyCLIP", "proxy"): PROXIES,
    ("Trident", "proxy"): PROXIES,
    ("Ensemble", "members"): DENSE,
}
SCOPES = ("", "ovseg", "mmdet", "mmseg")  # what may stand before a name
LARGEST_OPTION = 1024  # whole numbers among the options of a component


def component(registry: Registry, kinds: Mapping[str, Check] | None = None, default: str | None = None) -> Check:
    """A config ``{"type": name, …}`` of a listed component, or of a class that the program registered.

    Args:
        registry: where it is looked up; dotted names are not.
        kinds: checks of the options by listed name; for the registries of ``ALLOWED`` the classes' signatures.
        default: the kind of a mapping without ``type``.
    """

    def check(value: Any, place: str) -> dict:
        if not isinstance(value, dict):
            refuse(place, "a mapping with 'type'", value)
        name = listed_name(registry, kinds, value.get("type", default), place)
        options = {key: each for key, each in value.items() if key != "type"}
        if name in (kinds or ALLOWED.get(registry, ())):
            checked = (kinds[name] if kinds is not None else options_of(registry, name))(options, place)
        else:
            checked = plain(options, place)
        return ({"type": value["type"]} if "type" in value else {}) | checked

    return check


def listed_name(registry: Registry, kinds: Mapping[str, Check] | None, name: Any, place: str) -> str:
    """A name without the prefix of the package.

    Raises:
        ValueError: one that is neither listed nor registered by the program.
    """
    known = kinds or ALLOWED.get(registry, ())
    if isinstance(name, str):
        scope, _, bare = name.rpartition(".")
        if scope in SCOPES and (bare in known or registered_by_program(registry, bare)):
            return bare
    near = did_you_mean(name, list(known)) if isinstance(name, str) else ""
    raise ValueError(
        f"{place}.type is {shown(name)}, which a file may not name. {near}Allowed are {', '.join(known)}, and classes "
        f"that your program registers as {registry.name} before it loads the file."
    )


def component_or_name(registry: Registry) -> Check:
    """``component``, or the bare name of one without options."""
    full = component(registry)

    def check(value: Any, place: str) -> Any:
        return listed_name(registry, None, value, place) if isinstance(value, str) else full(value, place)

    return check


def options_of(registry: Registry, name: str) -> Check:
    """The options of a component that a file may set: those whose annotation is made of plain kinds, and ``NESTED``."""
    cls, fields = registry.get(name), {}
    for base in reversed(cls.__mro__):
        if "__init__" not in base.__dict__ or not base.__module__.startswith("ovseg"):
            continue
        hints = typing.get_type_hints(base.__init__)
        for option in inspect.signature(base.__init__).parameters:
            fields[option] = _check_of(hints.get(option))
    for (owner, option), kind in NESTED.items():
        if owner == name:
            fields[option] = listed(component(kind), 8) if option == "members" else component(kind)
    return mapping({option: check for option, check in fields.items() if check is not None})


def _check_of(hint: Any) -> Check | None:
    """The check of an annotation, or None: a file may not set the option."""
    simple = {
        bool: flag,
        int: whole(-LARGEST_OPTION, LARGEST_OPTION),
        float: number(-1e6, 1e6),
        str: text(),
        type(None): nothing,
    }
    if hint in simple:
        return simple[hint]
    parts = [part for part in typing.get_args(hint) if part is not ...]
    checks = [check for part in parts if (check := _check_of(part)) is not None]
    if not checks or len(checks) < len(parts):
        return None
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return either(*checks)
    return listed(either(*checks), 100) if origin in (tuple, Sequence) else None
