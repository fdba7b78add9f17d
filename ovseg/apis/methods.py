"""What there is to choose from, by the names people type, and what each needs."""

import json
from dataclasses import dataclass
from pathlib import Path

from ovseg.registry import DENSE, MODELS, REFINERS, SCORERS, named

TIMES = Path(__file__).with_name("method_times.json")
"""Times as multiples of the bare tower's, and the size of picture they were measured at: those of
docs/tables/methods_speed.md; ``tools/benchmarks/methods.py --record`` measures them anew at 640×480 pixels."""
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Choice:
    """One thing that has a name.

    kind      ``extractor``, ``refiner``, ``scorer``, ``detector`` or ``segmentor``
    name      as every entry point takes it, in any spelling
    source    the paper, or one line about it
    needs     what it cannot do without, beyond weights of CLIP; empty if nothing
    time      as a multiple of the tower's at ``measured_size``, or ``not measured``
    settings  published prediction settings, of extractors
    """

    kind: str
    name: str
    source: str
    needs: str
    time: str
    settings: str = ""


def list_methods(ready: bool = False) -> list[str]:
    """Names of extractors that ``load`` takes, sorted; ``ready``: only those that need neither a file besides the
    weights nor weights that were trained for them."""
    return [name for name, kind in named(DENSE).items() if not (ready and (kind.needs or kind.tuned))]


def measured_size() -> tuple[int, int]:
    """(W, H) of the picture that the times of ``choices`` were measured on."""
    record = json.loads(TIMES.read_text(encoding="utf-8"))
    return record["width"], record["height"]


def choices() -> list[Choice]:
    """Extractors, refiners, scorers, and trained detectors and segmentors; the latter import MMDetection and
    MMSegmentation."""
    times = json.loads(TIMES.read_text(encoding="utf-8"))["times"]
    rows = [
        Choice("extractor", name, kind.paper, _needs(kind), _time(times, name), _settings(kind))
        for name, kind in named(DENSE).items()
    ]
    for what, registry in (("refiner", REFINERS), ("scorer", SCORERS)):
        rows += [Choice(what, name, _line(kind), "", _time(times, name)) for name, kind in named(registry).items()]
    for name, kind in named(MODELS).items():
        what = "segmentor" if "segmentors" in kind.__module__.split(".") else "detector"
        rows.append(Choice(what, name, _line(kind), _checkpoint(kind), NOT_MEASURED))
    return rows


def _needs(extractor: type) -> str:
    files = {name: " or weights with it" if name in extractor.in_weights else "" for name in extractor.needs}
    needs = [f"{name}=FILE{other}" for name, other in files.items()]
    needs += ["weights tuned for it"] if extractor.tuned else []
    parts = [part.replace("_", " ") for part in extractor.requires]
    needs += [f"a tower with {' and '.join(parts)}"] if parts else []
    return ", ".join(needs)


def _checkpoint(model: type) -> str:
    if getattr(model, "metric", None) == "PhraseMetric":
        return "a ViT; ovseg locate"
    how = "ovseg.load, ovseg detect" if getattr(model, "loader", None) else "ovseg test, ovseg export"
    return f"a checkpoint of ovseg train; {how}"


def _time(times: dict, name: str) -> str:
    return f"{times[name]:.2f} ×" if name in times else NOT_MEASURED


def _settings(extractor: type) -> str:
    return ", ".join(f"{key}={value}" for key, value in extractor.protocol.items())


def _line(component: type) -> str:
    """The first sentence of its documentation."""
    paragraph = (component.__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0].removesuffix(".")
