"""The methods by the names people type: registered extractors and refiners, letter case ignored."""

from difflib import get_close_matches

from ovseg.registry import DENSE, REFINERS, names

TRAINED = {"fvit": "FViT", "regionclip": "RegionCLIP", "edadet": "EdaDet"}
"""Detectors that need a checkpoint, by the names people type."""


def trained_detector(method) -> str | None:
    """The model of MMDetection's kind that a method's name stands for, if any."""
    return TRAINED.get(method.lower().replace("-", "")) if isinstance(method, str) else None


def list_methods(ready: bool = False) -> list[str]:
    """Names that ``load`` takes, sorted; ``ready``: only those that need neither a file besides the weights nor weights
    that were trained for them."""
    extractors = {name: DENSE.get(name) for name in names(DENSE)}
    return sorted(name.lower() for name, of in extractors.items() if not (ready and (of.needs or of.tuned)))


def registered(name: str, registry, what: str) -> str:
    """The registered spelling of a name.

    Raises:
        ValueError: unknown name, with the nearest known ones.
    """
    by_lower = {known.lower(): known for known in names(registry)}
    if name.lower() not in by_lower:
        near = get_close_matches(name.lower(), by_lower, 3, 0.4)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"unknown {what} {name!r}. {hint}There are: {', '.join(sorted(by_lower))}.")
    return by_lower[name.lower()]


def dense_config(method: str | dict) -> dict:
    """``dict(type=…)`` of a method's extractor from its name, or a config given as such."""
    if isinstance(method, dict) and "type" in method:
        return dict(method)
    if not isinstance(method, str):
        raise ValueError(
            f"a method is a name such as 'naclip' or a config such as dict(type='NACLIP'), got {method!r}."
        )
    return {"type": registered(method, DENSE, "method")}


def refiner_configs(refine) -> tuple:
    """Configs of refiners from names (letter case ignored) or configs."""
    refine = (refine,) if isinstance(refine, (str, dict)) else tuple(refine or ())
    return tuple(r if isinstance(r, dict) else registered(r, REFINERS, "refiner") for r in refine)
