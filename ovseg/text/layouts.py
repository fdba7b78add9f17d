"""Class lists as other tools write them: YOLO, COCO, Hugging Face.

================  ======================================================================================
``names``         YOLO's data files: a list, ``{0: "bus", 1: "owl"}``, or a string of names
``categories``    COCO annotations: ``[{"id": 1, "name": "bus"}, …]``, also the bare list
``id2label``      Hugging Face's ``config.json``; also the bare mapping ``{"0": "bus"}``
``label2id``      ``{"bus": 0}``; also the bare mapping
================  ======================================================================================

Ids are put in order and counted anew from 0, since a class id is a place in a ``Vocabulary``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ovseg.text.splitting import split_words

NOT_A_CLASS = ("n/a", "")  # what label maps put where an id is not used


class Layout(NamedTuple):
    """Items that ``entries.read_entry`` or ``read_item`` read, and what was guessed, in words."""

    items: list[Any]
    notes: list[str]


def read_layout(spec: Any, where: str) -> Layout | None:
    """The classes of a mapping or list that another tool wrote; None if it is none of those.

    Args:
        spec: what a file holds, or the mapping that was given.
        where: how errors call it.

    Raises:
        ValueError: such a mapping with values that are no classes, or an id twice.
    """
    if isinstance(spec, Mapping) and "classes" not in spec:
        if "categories" in spec:
            return _categories(spec["categories"], where)
        for key in ("id2label", "names"):
            if key in spec:
                return _names(spec[key], f"{key!r} of {where}")
        if "label2id" in spec:
            return _label2id(spec["label2id"], f"'label2id' of {where}")
        if spec and all(_id(key) is not None for key in spec):
            return _names(spec, where)
        if spec and all(_id(value) is not None and not isinstance(value, str) for value in spec.values()):
            return _label2id(spec, where)
    if (
        isinstance(spec, list)
        and spec
        and all(isinstance(each, Mapping) and {"id", "name"} <= {*each} for each in spec)
    ):
        return _categories(spec, where)
    return None


def _names(names: Any, where: str) -> Layout:
    if isinstance(names, str):
        return Layout(*split_words(names))
    if isinstance(names, Mapping):
        ids = {key: _id(key) for key in names}
        bad = [key for key, number in ids.items() if number is None]
        if bad:
            raise ValueError(
                f"{where} has the key {bad[0]!r}; expected ids, {{0: 'bus', 1: 'owl'}}, or a list of names."
            )
        return _ordered([(ids[key], name) for key, name in names.items()], where)
    if isinstance(names, (list, tuple)):
        return Layout(list(names), [])
    raise ValueError(f"{where} is {names!r}; expected a list of names, or {{0: 'bus', 1: 'owl'}}.")


def _label2id(ids: Any, where: str) -> Layout:
    if not isinstance(ids, Mapping) or any(_id(number) is None for number in ids.values()):
        raise ValueError(f"{where} must give every name an id, {{'bus': 0, 'owl': 1}}.")
    return _ordered([(_id(number), name) for name, number in ids.items()], where)


def _categories(categories: Any, where: str) -> Layout:
    if not isinstance(categories, (list, tuple)) or not all(
        isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in categories
    ):
        raise ValueError(f"'categories' of {where} must be a list of {{'id': 1, 'name': 'bus'}}.")
    numbered = [(_id(each.get("id", index)), each) for index, each in enumerate(categories)]
    bad = [each["name"] for number, each in numbered if number is None]
    if bad:
        raise ValueError(f"the category {bad[0]!r} of {where} has an id that is no whole number.")
    return _ordered([(number, _category(each)) for number, each in numbered], where)


def _category(category: Mapping) -> Any:
    """Name, synonyms (LVIS) and color (panoptic COCO) of a category."""
    extras = {key: category[key] for key in ("synonyms", "color") if isinstance(category.get(key), (list, tuple))}
    return {"name": category["name"], **extras} if extras else category["name"]


def _ordered(pairs: Sequence[tuple[int, Any]], where: str) -> Layout:
    if len({number for number, _ in pairs}) < len(pairs):
        raise ValueError(f"{where} has an id twice; every class needs its own.")
    pairs = sorted(pairs, key=lambda pair: pair[0])
    pairs = [(number, item) for number, item in pairs if not _is_unused(item)]
    ids = [number for number, _ in pairs]
    shifted = ids != list(range(len(ids)))
    shown = ", ".join(map(str, ids[:3])) + (", …" if len(ids) > 3 else "")
    return Layout([item for _, item in pairs], [f"ids {shown} are counted anew from 0"] if shifted else [])


def _is_unused(item: Any) -> bool:
    return isinstance(item, str) and item.strip().casefold() in NOT_A_CLASS


def _id(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value) if len(value) < 10 else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
