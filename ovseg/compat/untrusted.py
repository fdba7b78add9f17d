"""What comes out of a file is data: checks that its values are of the promised kinds.

A check is a function (value, place) → value that raises ``ValueError`` for anything it does not describe; checks are
put together to schemas.  Whoever reads settings from weights, checkpoints or other files passes them through one, and
builds only what came out.  What a file may name as a ``type`` is in ``untrusted_types``.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ovseg.printable import is_strange
from ovseg.spelling import did_you_mean

Check = Callable[[Any, str], Any]

DEEPEST, MOST_VALUES = 12, 10_000
COMMANDS = ("type", "custom_imports", "init_cfg", "pretrained", "checkpoint", "weights")


def is_line(value: str) -> bool:
    """Whether a text is one line, without control characters, surrogates and marks that turn the way of writing."""
    return value.isprintable() or not any(map(is_strange, value))


def shown(value: Any) -> str:
    """A value of a file for a message: short, on one line, without control characters."""
    if isinstance(value, str):
        return ascii(value[:60]) + ("…" if len(value) > 60 else "")
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length():,} bits"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    kind = type(value).__name__
    return f"a {kind} of {len(value)}" if isinstance(value, (list, tuple, dict)) else f"a {kind}"


def refuse(place: str, expected: str, value: Any):
    raise ValueError(f"{place} is {shown(value)}; expected {expected}. The file is damaged or was not made by ovseg.")


def bounded(value: Any, place: str, deepest: int = 24, most: int = 500_000) -> Any:
    """The value, if its lists and mappings are neither nested nor long beyond reason.

    Raises:
        ValueError: they are.
    """
    level, count = [value] if _holds(value) else [], 0
    for _ in range(deepest):
        inside = (each.values() if isinstance(each, dict) else each for each in level)
        level = [item for items in inside for item in items if _holds(item)]
        count += len(level)
        if count > most:
            break
        if not level:
            return value
    raise ValueError(f"{place} holds more values than anything that ovseg writes, or they are nested too deeply.")


def _holds(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict)) and len(value) > 0


def parse_json(content: str | bytes, place: str) -> Any:
    """JSON from a file.

    Raises:
        ValueError: no JSON, or lists in lists beyond reason.
    """
    try:
        if not isinstance(content, (str, bytes)):
            raise ValueError(f"it is {shown(content)}")
        return json.loads(content)
    except RecursionError:
        raise ValueError(f"{place} is no JSON that can be read: it is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"{place} is no JSON that can be read: {str(error)[:120]}.") from None


def parse_yaml(content: str, place: str, deepest: int = 24, most: int = 500_000) -> Any:
    """YAML from a file, in the safe subset, whose aliases are counted as often as they are used.

    Raises:
        ValueError: no YAML, aliases that hold themselves, or more values or deeper ones than are reasonable.
    """
    import yaml

    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node, depth: int) -> int:
        """Values in a node, aliases written out; at most ``most`` + 1."""
        known = sizes.setdefault(id(node), 0)
        if depth > deepest or known is None:
            raise ValueError(f"{place} is nested too deeply, or holds itself.")
        if not known:
            sizes[id(node)] = None  # until it is known: whoever asks meanwhile is inside of it
            inner = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
            known = sizes[id(node)] = min(1 + sum(size(part, depth + 1) for part in parts), most + 1)
        return known

    try:
        loader = yaml.SafeLoader(content)
        node = loader.get_single_node()
        if node is None:
            return None
        if size(node, 0) > most:
            raise ValueError(f"{place} holds more values than anybody writes: aliases in aliases.")
        return bounded(loader.construct_document(node), place, deepest, most)
    except yaml.YAMLError as error:
        raise ValueError(f"{place} is no YAML that can be read: {' '.join(str(error).split())[:200]}.") from None
    except RecursionError:
        raise ValueError(f"{place} is no YAML that can be read: it is nested too deeply.") from None


def read_json(path: Path) -> Any:
    """``parse_json`` of a file in UTF-8; the error names the file."""
    content = parse_json(path.read_bytes().decode("utf-8"), str(path))
    return bounded(content, str(path), deepest=100, most=10**8)


def flag(value: Any, place: str) -> bool:
    return value if isinstance(value, bool) else refuse(place, "true or false", value)


def nothing(value: Any, place: str) -> None:
    if value is not None:
        refuse(place, "null", value)


def number(low: float, high: float) -> Check:
    """A finite number from ``low`` to ``high``."""

    def check(value: Any, place: str) -> float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        right = is_number and low <= value <= high and math.isfinite(value)
        return value if right else refuse(place, f"a number from {low:g} to {high:g}", value)

    return check


def whole(low: int, high: int) -> Check:
    """A whole number from ``low`` to ``high``."""

    def check(value: Any, place: str) -> int:
        right = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return value if right else refuse(place, f"a whole number from {low} to {high}", value)

    return check


def text(longest: int = 200, *choices: str) -> Check:
    """One line of at most so many printable characters; with ``choices``, one of them."""

    def check(value: Any, place: str) -> str:
        right = isinstance(value, str) and len(value) <= longest and is_line(value)
        if choices:
            return value if right and value in choices else refuse(place, " or ".join(map(repr, choices)), value)
        return value if right else refuse(place, f"one line of at most {longest} printable characters", value)

    return check


def listed(item: Check, most: int = 1000, least: int = 0) -> Check:
    """A list of ``least`` to ``most`` items, as a tuple."""

    def check(value: Any, place: str) -> tuple:
        if not isinstance(value, (list, tuple)) or not least <= len(value) <= most:
            count = f"{most}" if least == most else f"{least} to {most}"
            refuse(place, f"a list of {count}", value)
        return tuple(item(each, f"{place}[{index}]") for index, each in enumerate(value))

    return check


def either(*checks: Check) -> Check:
    """What one of the checks lets pass; otherwise the complaint of the last about a list or mapping, else the first."""

    def check(value: Any, place: str) -> Any:
        complaints = []
        for each in checks:
            try:
                return each(value, place)
            except ValueError as error:
                complaints.append(error)
        raise complaints[-1 if isinstance(value, (dict, list, tuple)) else 0]

    return check


def optional(item: Check) -> Check:
    return lambda value, place: None if value is None else item(value, place)


def mapping(fields: Mapping[str, Check]) -> Check:
    """A mapping with some of the keys of ``fields``.

    Raises:
        ValueError: also a key beyond them.
    """

    def check(value: Any, place: str) -> dict:
        if not isinstance(value, dict):
            refuse(place, f"a mapping with {', '.join(list(fields)[:5])}", value)
        for key in value:
            if key not in fields:
                near = did_you_mean(key, list(fields)) if isinstance(key, str) else ""
                known = ", ".join(fields)
                raise ValueError(f"{place} has the key {shown(key)}, which no file may set. {near}Known: {known}.")
        return {key: fields[key](each, f"{place}.{key}") for key, each in value.items()}

    return check


def mapping_of(item: Check, most: int = 1000) -> Check:
    """A mapping from printable names to values of one kind."""

    def check(value: Any, place: str) -> dict:
        if not isinstance(value, dict) or len(value) > most:
            refuse(place, f"a mapping with at most {most} keys", value)
        return {text()(key, f"a key of {place}"): item(each, f"{place}.{key}") for key, each in value.items()}

    return check


def plain(value: Any, place: str) -> Any:
    """Numbers, words, lists and mappings of them, bounded; no component, no key that means something to MMEngine."""
    left = [MOST_VALUES]

    def check(value: Any, place: str, depth: int) -> Any:
        left[0] -= 1
        if depth > DEEPEST or left[0] < 0:
            refuse(place, f"at most {MOST_VALUES:,} values, nested at most {DEEPEST} deep", value)
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str) or not is_line(key) or key.startswith("_") or key in COMMANDS:
                    raise ValueError(f"{place} has the key {shown(key)}, which no file may set.")
            return {key: check(each, f"{place}.{key}", depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(check(each, f"{place}[{index}]", depth + 1) for index, each in enumerate(value))
        if isinstance(value, str):
            return text(1000)(value, place)
        return value if value is None or isinstance(value, bool) else number(-1e9, 1e9)(value, place)

    return check(value, place, 0)
