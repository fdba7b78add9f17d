"""MMEngine configs, read strictly.

The format is MMEngine's (``.py``, ``.json`` or ``.yaml``, ``_base_`` or ``read_base``). A ``.py`` config is a Python
program and is executed by MMEngine: read one as you would read a script before running it. ovseg itself never
evaluates strings; overrides are parsed by MMEngine's ``DictAction`` (numbers, booleans, None, lists, tuples, text).

MMEngine accepts two mistakes silently, which are errors here:

* an override of a key that does not exist (``merge_from_dict`` adds it, and nobody reads it);
* a top-level key that nobody reads: a misspelled runner setting, or a variable such as ``test_pipeline`` that a child
  file changes although the dataloader of the base file already holds a copy of the old value.
"""

import ast
import copy
from pathlib import Path

from mmengine.config import Config, DictAction

from ovseg.compat.config_scope import find_config
from ovseg.compat.former_names import current
from ovseg.literals import literal
from ovseg.registry import accepted_keys, did_you_mean, find_component
from ovseg.text.benchmark_vocabularies import canonical_benchmark
from ovseg.text.vocabulary import Vocabulary

# What the runner, its command-line tools and MMEngine's config reader look up; everything else is a variable.
RUNNER_KEYS = frozenset(
    "model work_dir train_dataloader val_dataloader test_dataloader train_cfg val_cfg test_cfg auto_scale_lr "
    "optim_wrapper param_scheduler val_evaluator test_evaluator default_hooks custom_hooks data_preprocessor load_from "
    "resume launcher env_cfg log_processor log_level visualizer default_scope randomness experiment_name runner_type "
    "model_wrapper_cfg find_unused_parameters sync_bn cudnn_benchmark compile strategy efficient_conv_bn_eval "
    "tta_model tta_pipeline custom_imports vis_backends backend_args benchmarks".split()
)


class Typed(str):
    """Text typed by a user; parsed only when the kind of the value it replaces is known."""


def load_config(path: str | Path, overrides: dict | list[str] | None = None) -> Config:
    """Read a config file, check its keys and apply overrides.

    Args:
        path: a config file, or the name of a config of the package (``find_config``).
        overrides: ``{"a.b.0.c": value}`` (nested dicts allowed, ``_delete_=True`` replaces instead of merging) or the
            words of ``--cfg-options``: ``["a.b.0.c=3", "names=[cat,dog]"]``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a key nobody reads, an override of a missing key or with a value of another kind.
    """
    cfg = Config.fromfile(find_config(path))
    check_keys(cfg)
    apply_overrides(cfg, overrides or {})
    return cfg


def read_dump(text: str) -> dict:
    """The config that a checkpoint carries, as MMEngine dumps it; parsed as plain values, never executed.

    Former spellings of keys and types become the current ones.

    Raises:
        ValueError: anything but ``name = value`` lines of literals and ``dict(…)``.
    """

    try:
        lines = [(line.targets[0].id, literal(line.value)) for line in ast.parse(text).body]
    except (SyntaxError, AttributeError, TypeError, ValueError, RecursionError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"this config is more than plain values, and none is executed: {reason[:160]}.") from error
    return current(dict(lines))


def self_contained(cfg: Config) -> str:
    """A run's config as its checkpoints record it: with the classes themselves where it names a file of them."""
    model = cfg.get("model") or {}
    named = [name for name in ("vocabulary", "unseen") if isinstance(model.get(name), str)]
    named = [name for name in named if not canonical_benchmark(model[name])]
    if not named:
        return cfg.pretty_text
    cfg = copy.deepcopy(cfg)
    for name in named:
        read = Vocabulary.parse(cfg.model[name])
        cfg.model[name] = list(read.names) if name == "unseen" else _classes(read)
    return cfg.pretty_text


def _classes(vocabulary: Vocabulary) -> list | dict:
    found = vocabulary.to_dict()
    found.pop("colors", None)
    return found["classes"] if vocabulary.background.kind == "none" else found


def check_keys(cfg: Config, known: frozenset[str] = RUNNER_KEYS):
    """Raise ``ValueError`` for top-level keys that nobody reads.

    A key outside ``known`` is a variable: its value must turn up in the rest of the config, whole or in parts. Keys
    that begin with an underscore are not checked.
    """
    plain = _plain(cfg.to_dict())  # without the names that a file imports
    complaints = []
    for key, value in plain.items():
        rest = {other: tree for other, tree in plain.items() if other != key}
        if key in known or key.startswith("_") or _is_used(value, rest):
            continue
        guess = did_you_mean(key, known)
        complaints.append(f"'{key}': {guess}" if guess else f"'{key}': nothing in the config holds its value. ")
    if complaints:
        where = f" of {cfg.filename}" if cfg.filename else ""
        raise ValueError(
            f"Top-level keys{where} that nobody reads: {''.join(complaints)}"
            "A variable is copied where it is used when its file is read, so changing it in a child file has no effect "
            "there: set the key that holds the copy (such as test_dataloader.dataset.pipeline). Begin the name with an "
            "underscore if it is a helper of the file itself."
        )


def apply_overrides(cfg: Config, overrides: dict | list[str]):
    """Change existing keys of ``cfg`` in place; see ``load_config``.

    A key that is absent is accepted where something is known to read it: a runner key at the top level, or an argument
    in the signature of the component (``dict(type=...)``) it is given to. An int is accepted for a float, None for
    anything and anything for None; lists and tuples keep the kind they had.
    """
    if not isinstance(overrides, dict):
        overrides = dict(_split(word) for word in overrides)
    for path, value in overrides.items():
        head = path.split(".")[0]
        if head in cfg and head not in RUNNER_KEYS and not head.startswith("_"):
            _refuse_variable(cfg, path, head)
        _replaced(cfg, cfg, path.split("."), value, path)


def _split(word):
    path, equals, value = word.partition("=")
    if not equals or not path:
        raise ValueError(f"Override '{word}' is not of the form key=value, such as model.protocol.window=336.")
    return path, Typed(value)


def _refuse_variable(cfg, path, head):
    plain = _plain(dict(cfg.items()))
    copies = [place for place, node in _walk({k: v for k, v in plain.items() if k != head}) if node == plain[head]]
    raise ValueError(
        f"Override '{path}': '{head}' is a variable of the config file, copied where it is used when the file is read, "
        f"so changing it now has no effect. Change {' and '.join(copies) or 'the keys that were made from it'}."
    )


def _replaced(cfg, node, keys, value, path):
    """``node`` with the entry at ``keys`` changed; dicts are changed in place, lists and tuples are copied."""
    if not keys:
        if isinstance(value, dict) and isinstance(node, (dict, list, tuple)):
            if value.get("_delete_"):
                return {key: item for key, item in value.items() if key != "_delete_"}
            for key, item in value.items():
                node = _replaced(cfg, node, [str(key)], item, f"{path}.{key}")
            return node
        return _same_kind(node, value, path)
    key, rest = keys[0], keys[1:]
    if isinstance(node, (dict, Config)):
        if key in node:
            node[key] = _replaced(cfg, node[key], rest, value, path)
        elif not rest and _readable(cfg, node, key):
            node[key] = _same_kind(None, value, path)
        else:
            raise ValueError(_missing(cfg, node, keys, path))
        return node
    if isinstance(node, (list, tuple)):
        if not key.isdigit() or int(key) >= len(node):
            raise ValueError(f"Override '{path}': '{key}' should be a position from 0 to {len(node) - 1} in a list.")
        items = list(node)
        items[int(key)] = _replaced(cfg, items[int(key)], rest, value, path)
        return type(node)(items)
    raise ValueError(f"Override '{path}': there is no '{key}' inside the value {node!r}.")


def _readable(cfg, node, key):
    arguments = _arguments(cfg, node)
    return arguments is None or key in arguments


def _arguments(cfg, node):
    """Keys that are read at ``node`` whether or not the config holds them; None for any key."""
    if node is cfg:
        return tuple(RUNNER_KEYS)
    component = find_component(node["type"], cfg.get("default_scope")) if isinstance(node.get("type"), str) else None
    return () if component is None else accepted_keys(component)


def _missing(cfg, node, keys, path):
    parent = path[: len(path) - len(".".join(keys))].rstrip(".")
    inside = f"'{parent}' has" if parent else "the config has"
    same = [place for place, _ in _walk(_plain(dict(cfg.items()))) if place.split(".")[-1] == keys[-1]]
    elsewhere = f"A key of that name is at {', '.join(same[:3])}. " if same else ""
    options = dict.fromkeys((*node, *(_arguments(cfg, node) or ())))
    guess = did_you_mean(keys[0], list(options)) or f"It has: {', '.join(node)}. "
    return f"Override '{path}': {inside} no key '{keys[0]}'. {guess}{elsewhere}".rstrip()


def _same_kind(old, new, path):
    """``new`` as the kind of value ``old`` is."""
    if isinstance(new, Typed):
        new = _parsed(old, new, path)
    if old is None or new is None or not isinstance(old, (bool, int, float, str, list, tuple, dict)):
        return new
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        return float(new)
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return type(old)(new)
    if isinstance(new, type(old)) and isinstance(new, bool) == isinstance(old, bool):
        return new
    kind = next(kind for kind in (bool, int, float, str, list, tuple, dict) if isinstance(old, kind)).__name__
    hint = f" Write [{new}] for a list of one." if isinstance(old, (list, tuple)) else ""
    raise ValueError(f"Override '{path}': the config holds {old!r} ({kind}), got {new!r} ({type(new).__name__}).{hint}")


def _parsed(old, text, path):
    if isinstance(old, str) and text != "None":
        return str(text)
    try:
        return DictAction._parse_iterable(str(text))
    except AssertionError as error:
        raise ValueError(f"Override '{path}={text}': {error}.") from None


def _plain(value):
    """Nested dicts and lists without MMEngine's classes, tuples as lists, so that values compare by content."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _walk(tree, path=""):
    """Every (dotted path, value) below a tree of dicts and lists."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        place = f"{path}.{key}" if path else str(key)
        yield place, value
        if isinstance(value, (dict, list)):
            yield from _walk(value, place)


def _is_used(value, tree):
    """Whether a variable's value occurs in a tree: equal, as text inside a text, or all its items one by one."""
    nodes = [node for _, node in _walk(tree)]
    if isinstance(value, str):
        return any(isinstance(node, str) and value in node for node in nodes)
    if value in nodes:
        return True
    if isinstance(value, dict):
        return any(isinstance(node, dict) and value.items() and _within(value, node) for node in nodes)
    return isinstance(value, list) and bool(value) and all(_is_used(item, tree) for item in value)


def _within(small, large):
    return all(key in large and large[key] == item for key, item in small.items())
