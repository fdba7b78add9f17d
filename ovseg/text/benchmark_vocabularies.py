"""Class lists of the usual benchmarks, in the label order of the data set.

They work wherever words are expected: ``ovseg predict photo.jpg -v ade150`` or ``Vocabulary.parse("cityscapes")``. To
start your own list from one of them::

    vocabulary = Vocabulary.parse("coco_panoptic").subset("person, car, road, sky").with_background(0.3)
    Path("mine.json").write_text(json.dumps(vocabulary.to_dict()))        # edit at will, then -v mine.json

The lists are the files ``vocabularies/*.json`` beside this module, in the format any vocabulary file has. Each states
where its names were taken from and how they were cleaned; ``hash`` is ``Vocabulary.hash``, to be quoted with scores. A
``label`` is the data set's own spelling where it differs from the cleaned name, see ``benchmark_labels``. The words of
VOC, Context and COCO-Object are those of SCLIP's class files (Wang et al., ECCV 2024), on which published numbers rest:
"ship" for VOC's boat, for example. Thresholds are not part of a list: they hang on the method and its logit scale.

For one word per class, spelled as the class is named: ``Vocabulary.parse(list(vocabulary.names))``.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ovseg.spelling import did_you_mean, nearest
from ovseg.text.background import BACKGROUND_NAME
from ovseg.text.names import fold

FOLDER = Path(__file__).parent / "vocabularies"

ALIASES = {"ade20k": "ade150", "pc59": "context59", "pc459": "context459"}  # as papers abbreviate them


@cache
def list_benchmarks() -> tuple[str, ...]:
    """Names of all benchmarks, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


@cache
def benchmark_labels(name: str) -> tuple[str, ...]:
    """The data set's own spelling of every class (K strings), for example ``"wall-other-merged"`` for "wall".

    Raises:
        ValueError: unknown name, with the closest known one.
    """
    spec = benchmark_spec(name)
    labels = [item.get("label", item["name"]) if isinstance(item, Mapping) else item for item in spec["classes"]]
    return (BACKGROUND_NAME, *labels) if spec["background"] else tuple(labels)


def canonical_benchmark(name: str) -> str | None:
    """Name as listed by ``list_benchmarks``, or None if it is no benchmark."""
    return _spellings().get(_squeeze(name))


def suspected_benchmark(text: str) -> str | None:
    """The benchmark that a lone word probably misspells. Short plain words are taken for classes: "elvis" is one."""
    lone = "," not in text and "|" not in text
    if not lone or not (len(text) > 7 or "_" in text or any(char.isdigit() for char in text)):
        return None
    near = nearest(_squeeze(text), list(_spellings()), count=1, cutoff=0.75)
    return _spellings()[near[0]] if near else None


@cache
def _spellings() -> dict[str, str]:
    return {_squeeze(name): name for name in list_benchmarks()} | ALIASES


def _squeeze(name: str) -> str:
    return "".join(char for char in fold(name) if char not in "-_ ")


@cache
def benchmark_spec(name: str) -> dict[str, Any]:
    """The list of a benchmark as its file holds it, in the form of any vocabulary file; letter case and "-", "_", " "
    in the name do not matter.

    Raises:
        ValueError: unknown name, with the closest known one.
    """
    known = canonical_benchmark(name)
    if known is None:
        hint = did_you_mean(_squeeze(name), list_benchmarks())
        raise ValueError(f"there is no benchmark vocabulary {name!r}. {hint}Known: {', '.join(list_benchmarks())}.")
    return json.loads((FOLDER / f"{known}.json").read_text(encoding="utf-8"))
