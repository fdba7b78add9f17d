"""What there is to choose from, by the names people type, and what each needs."""

import json
from dataclasses import dataclass
from pathlib import Path

from .catalog import Declared, declared

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
    from ovseg.registry import DENSE, named

    return [name for name, kind in named(DENSE).items() if not (ready and (kind.needs or kind.tuned))]


def measured_size() -> tuple[int, int]:
    """(W, H) of the picture that the times of ``choices`` were measured on."""
    record = json.loads(TIMES.read_text(encoding="utf-8"))
    return record["width"], record["height"]


def choices() -> list[Choice]:
    """Extractors, refiners, scorers, and trained detectors and segmentors, as ``catalog`` reads them off the source."""
    times = json.loads(TIMES.read_text(encoding="utf-8"))["times"]
    rows = [
        Choice("extractor", each.name, each.attributes["paper"], _needs(each), _time(times, each.name), _settings(each))
        for each in declared("DENSE")
    ]
    for what, registry in (("refiner", "REFINERS"), ("scorer", "SCORERS")):
        rows += [Choice(what, each.name, _line(each), "", _time(times, each.name)) for each in declared(registry)]
    for each in declared("MODELS"):
        if isinstance(each.own.get("name"), str):
            what = each.room.removesuffix("s")
            rows.append(Choice(what, each.name, _line(each), _checkpoint(each), NOT_MEASURED))
    return rows


def _needs(extractor: Declared) -> str:
    has = extractor.attributes
    files = {name: " or weights with it" if name in has.get("in_weights", ()) else "" for name in has.get("needs", ())}
    needs = [f"{name}=FILE{other}" for name, other in files.items()]
    needs += ["weights tuned for it"] if has.get("tuned") else []
    parts = [part.replace("_", " ") for part in has.get("requires", ())]
    needs += [f"a tower with {' and '.join(parts)}"] if parts else []
    return ", ".join(needs)


def _checkpoint(model: Declared) -> str:
    if model.attributes.get("metric") == "PhraseMetric":
        return "a ViT; ovseg locate"
    how = "ovseg.load, ovseg detect" if model.attributes.get("loader") else "ovseg test, ovseg export"
    return f"ovseg[mm] and a checkpoint of ovseg train; {how}"


def _time(times: dict, name: str) -> str:
    return f"{times[name]:.2f} ×" if name in times else NOT_MEASURED


def _settings(extractor: Declared) -> str:
    return ", ".join(f"{key}={value}" for key, value in extractor.attributes["protocol"].items())


def _line(component: Declared) -> str:
    """The first sentence of its documentation."""
    paragraph = component.doc.strip().partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0].removesuffix(".")
