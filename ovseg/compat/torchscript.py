"""The tensors of a TorchScript archive, read without running it.

An archive is a zip file: ``data.pkl`` holds the attributes of its modules, ``data/N`` holds the storages, ``code/…``
the program, which may write files or never return, and part of which (``__setstate__``) runs as soon as PyTorch opens
the archive.  Here ``data.pkl`` is taken apart into inert nodes, so there is nothing that could be called, and the
program's text is searched for two lists of each class, ``__parameters__`` and ``__buffers__``.

A module that restores itself by ``__setstate__`` does not say which of its tensors is which; it is left out.
"""

import pickletools
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

LARGEST_TEXT = 16 * 2**20  # bytes of data.pkl, and of all source files together
DEEPEST, MOST_MODULES = 64, 100_000
STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
REBUILD = "torch._utils._rebuild_tensor_v2"


@dataclass(eq=False)
class Node:
    """What a pickle would make: ``name`` of the class or function, or "" for a storage, its arguments, its state."""

    name: str
    args: Any = ()
    state: Any = None


@dataclass
class Source:
    """What the source of a class declares: its tensors by kind, and whether it restores itself."""

    parameters: set[str] = field(default_factory=set)
    buffers: set[str] = field(default_factory=set)
    is_module: bool = False
    restores_itself: bool = False


class Archive:
    """The records of a zip file as PyTorch writes it.

    Raises:
        ValueError: an entry of tensors that is compressed, or entries larger than the whole file.
    """

    def __init__(self, path: Path):
        with zipfile.ZipFile(path) as archive:
            self.path, self.entries = path, archive.infolist()
        self.names = {entry.filename.partition("/")[2]: entry.filename for entry in self.entries}
        data = [entry for entry in self.entries if "/code/" not in f"/{entry.filename}"]
        packed = [entry.filename for entry in data if entry.compress_type != zipfile.ZIP_STORED]
        if packed:
            raise ValueError(f"{packed[0][:80]!r} is compressed, and PyTorch compresses no tensors")
        total, size = sum(entry.file_size for entry in data), path.stat().st_size
        if total > size:
            raise ValueError(f"its entries claim {total:,} bytes, the file has {size:,}")

    def read(self, name: str, most: int | None = None) -> bytes:
        """A record, by its name without the archive's own folder; ``most`` bounds its bytes.

        Raises:
            ValueError: there is none, or it is larger.
        """
        if name not in self.names:
            raise ValueError(f"it has no record {name[:80]!r}")
        with zipfile.ZipFile(self.path) as archive, archive.open(self.names[name]) as file:
            content = file.read() if most is None else file.read(most + 1)
        if most is not None and len(content) > most:
            raise ValueError(f"{name[:80]!r} is larger than {most:,} bytes")
        return content


def is_torchscript(archive: Archive) -> bool:
    return "constants.pkl" in archive.names or any(name.startswith("code/") for name in archive.names)


def read_torchscript(archive: Archive) -> tuple[dict[str, Tensor], list[str]]:
    """The parameters and buffers of an archive's modules, named as ``state_dict`` of the running module names them.

    Returns:
        The tensors, on the CPU, those of one storage sharing memory; and the places of modules that restore
        themselves from tensors, which are left out.

    Raises:
        ValueError: a damaged archive, or one that claims more than it holds.
    """
    if "byteorder" in archive.names and archive.read("byteorder", 16).strip() != b"little":
        raise ValueError("its numbers are not little-endian")
    root = parse(archive.read("data.pkl", LARGEST_TEXT))
    reader = _Modules(archive)
    state = dict(reader.tensors(root, ""))
    return state, reader.left_out


def parse(data: bytes) -> Any:
    """A pickle as nodes, containers and numbers; nothing in it is imported or called.

    Raises:
        ValueError: an instruction that PyTorch does not write.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def above() -> list:
        first = marks.pop()
        items = stack[first:]
        del stack[first:]
        return items

    for opcode, value, _ in pickletools.genops(data):
        match opcode.name:
            case "PROTO":
                continue
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINSTRING":
                stack.append(value)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                stack.append(tuple(above()))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = above()
                stack[-1].extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                key, item = stack[-2:]
                del stack[-2:]
                stack[-1][key] = item
            case "SETITEMS":
                items = above()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "GLOBAL":
                stack.append(Node(str(value).replace(" ", ".")))
            case "NEWOBJ" | "REDUCE":
                callee, args = stack[-2:]
                stack[-2:] = [Node(callee.name, args)]
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case "BINPERSID":
                stack[-1] = Node("", stack[-1])
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case _:
                raise ValueError(f"its pickle has the instruction {opcode.name}")
    raise ValueError("its pickle has no end")


class _Modules:
    def __init__(self, archive: Archive):
        self.archive = archive
        self.left_out: list[str] = []
        self.files: dict[str, dict[str, Source]] = {}
        self.storages: dict[str, Tensor] = {}
        self.modules, self.text_left = 0, LARGEST_TEXT

    def tensors(self, module: Any, place: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of a module and all below it."""
        self.modules += 1
        if depth > DEEPEST or self.modules > MOST_MODULES:
            raise ValueError(f"its modules stand deeper than {DEEPEST} or are more than {MOST_MODULES:,}")
        if not isinstance(module, Node) or not module.name.startswith("__torch__"):
            raise ValueError("its data is not that of a module")
        source = self.source(module.name)
        if not source.is_module:
            return
        if source.restores_itself or not isinstance(module.state, dict):
            if any(isinstance(each, Node) for each in _leaves(module.state)):
                self.left_out.append(place.rstrip(".") or "the whole")
            return
        own = {name: value for name, value in module.state.items() if isinstance(value, Node)}
        for names in (source.parameters, source.buffers):
            for name in (name for name in own if name in names):
                yield place + name, self.tensor(own[name])
        for name, value in own.items():
            if value.name.startswith("__torch__"):
                yield from self.tensors(value, f"{place}{name}.", depth + 1)

    def source(self, kind: str) -> Source:
        file, _, name = kind.rpartition(".")
        record = f"code/{file.replace('.', '/')}.py"
        if record not in self.files:
            text = self.archive.read(record, self.text_left)
            self.text_left -= len(text)
            self.files[record] = classes(text.decode())
        if name not in self.files[record]:
            raise ValueError(f"its program has no class {kind[:80]!r}")
        return self.files[record][name]

    def tensor(self, node: Node) -> Tensor:
        if node.name != REBUILD:
            raise ValueError(f"it has a tensor that is made by {node.name[:80]!r}")
        stored, offset, size, stride, *_ = node.args
        kind, storage, key, _, count = stored.args
        if stored.name or kind != "storage" or not isinstance(key, str):
            raise ValueError("it has a tensor without a storage")
        values = self.storage(storage.name.removeprefix("torch."), key)
        numbers = (offset, count, *size, *stride)
        if not all(type(number) is int and number >= 0 for number in numbers) or len(size) != len(stride):
            raise ValueError("it has a tensor of negative or fractional size")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else offset - 1
        if not last < count == len(values):
            raise ValueError(f"its storage of {len(values):,} numbers is too small for a tensor {str(size)[:80]}")
        return values.as_strided(size, stride, offset)

    def storage(self, kind: str, key: str) -> Tensor:
        """A record as numbers (n,); each is read once."""
        if kind not in STORAGES:
            raise ValueError(f"it has a storage of the unknown kind {kind[:80]!r}")
        if key not in self.storages:
            content = bytearray(self.archive.read(f"data/{key}"))
            dtype = STORAGES[kind]
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        if self.storages[key].dtype != STORAGES[kind]:
            raise ValueError(f"its storage {key[:80]!r} is of two kinds")
        return self.storages[key]


def classes(text: str) -> dict[str, Source]:
    """What a TorchScript source file declares of its classes; the text is searched line by line, not run."""
    found: dict[str, Source] = {}
    current = Source()
    for line in text.splitlines():
        if head := re.match(r"class (\w+)(?:\((\w*)\))?:", line):
            current = found[head[1]] = Source(is_module=head[2] == "Module")
        elif line.startswith(("  __parameters__ = ", "  __buffers__ = ")):
            names = set(re.findall(r'"((?:[^"\\]|\\.)*)"', line))
            if "__parameters__" in line.partition("=")[0]:
                current.parameters = names
            else:
                current.buffers = names
        elif line.startswith("  def __setstate__("):
            current.restores_itself = True
    return found


def _leaves(value: Any) -> Iterator[Any]:
    """What lists, tuples and dicts hold, at any depth; each container once."""
    seen, todo = set(), [value]
    while todo:
        value = todo.pop()
        if not isinstance(value, (list, tuple, dict)):
            yield value
        elif id(value) not in seen:
            seen.add(id(value))
            todo.extend(value.values() if isinstance(value, dict) else value)
