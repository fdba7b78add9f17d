"""Reading weights without executing what they contain, and writing them so that no reader ever sees half a file.

Three formats are read, recognized by their content, not by their name:

*   safetensors: data only;
*   what ``torch.save`` writes, by PyTorch's ``weights_only`` unpickler.  Beyond tensors it may hold NumPy numbers and
    the classes of ``FOREIGN``, which are not imported: a :class:`Record` keeps their attributes;
*   TorchScript archives (OpenAI's published CLIP files), of which only the tensors are read: ``compat.torchscript``.

Whatever the format, what comes out are plain tensors under printable names, not much larger than the file.
"""

import codecs
import hashlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ovseg.files import atomic_write

from .torchscript import Archive, is_torchscript, read_torchscript

WRAPPERS = ("state_dict", "model", "module", "model_state_dict")
FOREIGN = (
    "argparse.Namespace",
    "builtins.getattr",  # how MMEngine's HistoryBuffer refers to its own methods
    "builtins.slice",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
)
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # before torch.save wrote zip archives
SAFETENSORS_HEADER = 100_000_000  # bytes, the limit of the format
LONGEST_NAME = 1000  # of a tensor
VIEWS = 16  # how many times the stored bytes tensors may show in all
AGAIN = "download or copy the file again, and compare its size with the source"


class UnreadableWeights(ValueError):
    """Why a file was not read as weights, and what to do."""


class Record:
    """What stands for an object of a foreign class: its arguments in ``args``, its attributes, and none of its code."""

    def __new__(cls, *args):
        record = super().__new__(cls)
        record.args = args
        return record

    def __setstate__(self, state):
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})

    def __repr__(self):
        return f"Record({', '.join(f'{key}={value!r}' for key, value in vars(self).items())})"


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a weights file, on the CPU; see :func:`read_checkpoint_with_meta`."""
    return read_checkpoint_with_meta(path)[0]


def read_checkpoint_with_meta(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """The named tensors of a weights file, on the CPU and in the stored dtype, and what the file says besides.

    A state dict inside ``state_dict``, ``model``, ``module`` or ``model_state_dict`` is taken out, and a leading
    ``module.`` that all names share is removed.  The second value holds everything that stood beside the tensors
    (epoch, config, optimizer, ...); of a safetensors file, its string-to-string metadata.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: a folder, a damaged file, or one that holds no state dict or Python objects beyond the allowed ones.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in (".safetensors", ".pth", ".pt", ".bin", ".ckpt"))
        raise problem(path, "it is a folder", f"give a file in it ({', '.join(inside[:5]) or 'no weights are there'})")
    if not path.exists():
        raise FileNotFoundError(
            f"cannot read weights from {path}: there is no such file. Check the spelling and the current folder, "
            f"{Path.cwd()}; a relative path is looked up from there."
        )
    if not path.is_file():
        raise problem(path, "it is a device or a pipe, which may never end", "give a file")
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < SAFETENSORS_HEADER:
        return read_safetensors(path)
    return unwrap(path, read_pickled(path))


def read_pickled(path: Path):
    """The content of a file of ``torch.save`` or ``torch.jit.save``, whose pickle is restricted or taken apart.

    Raises:
        ValueError: a damaged file, or one of another kind.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if head.startswith(b"PK\x03\x04"):
        return read_zip(path)
    if head.startswith(LEGACY_MAGIC):
        return read_torch(path)
    raise problem(path, *describe(head))


def problem(path: Path, found: str, advice: str) -> UnreadableWeights:
    return UnreadableWeights(f"cannot read weights from {path}: {found}. What to do: {advice}.")


def describe(head: bytes) -> tuple[str, str]:
    """What a file that is no weights file seems to be, and what to do about it."""
    text = head.lstrip().lower()
    if not head:
        return "the file is empty", AGAIN
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        page = "it is a web page, such as a login form or an error message, saved in place of the weights"
        return page, "open the address in a browser, download the file itself, and compare its size with the source"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the weights it points to", "run `git lfs pull` in its repository"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        advice = "convert it where it was made, with torch.save or safetensors, to a dict from names to tensors"
        return "it is a Python pickle that torch.save did not write, and pickles can run any code", advice
    if plain := as_text(head):
        return f"it is a text file beginning with {plain[:40]!r}", "give the weights file (.safetensors, .pth, .pt)"
    return f"its first bytes, {head[:8].hex(' ')}, are of no format known here (safetensors, torch.save)", AGAIN


def as_text(head: bytes) -> str:
    """The beginning of a file as text; empty if it is none."""
    try:
        return "" if b"\0" in head else codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return ""


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return strip_module(checked(path, state)), dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise problem(path, f"it begins like a safetensors file but is damaged ({error})", AGAIN) from error


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file without its tensors; empty for files of other formats or none at all."""
    path = Path(path).expanduser()
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise problem(path, f"it is a damaged safetensors file ({error})", AGAIN) from error


def read_zip(path: Path):
    """The content of a zip archive written by ``torch.save`` or ``torch.jit.save``."""
    try:
        archive = Archive(path)
    except zipfile.BadZipFile as error:
        size = path.stat().st_size
        raise problem(path, f"the file is incomplete: {size:,} bytes of a longer PyTorch archive", AGAIN) from error
    except ValueError as error:
        raise problem(path, f"it is not an archive that PyTorch wrote: {error}", AGAIN) from error
    if "data.pkl" not in archive.names:
        inside = ", ".join(entry.filename[:80] for entry in archive.entries[:3])
        found = f"it is a zip archive of {inside or 'nothing'}, which torch.save did not write"
        raise problem(path, found, "unpack it and give the weights file inside, if there is one")
    if not is_torchscript(archive):
        return read_torch(path)
    with damage_reported(path):
        state, left_out = read_torchscript(archive)
    if not state:
        found = "it is a TorchScript archive without plain tensors, and its program is not run here"
        advice = "where you trust it, convert it: torch.save(torch.jit.load(file).state_dict(), 'weights.pth')"
        raise problem(path, found, advice)
    if left_out:
        warnings.warn(
            f"{path.name}: the program of this TorchScript archive restores {', '.join(left_out[:3])} by itself, and "
            "it is not run; their tensors are left out.",
            stacklevel=2,
        )
    return state


def read_torch(path: Path):
    """The content of a file written by ``torch.save``, by the restricted unpickler."""
    with torch.serialization.safe_globals(allowed_globals()), damage_reported(path):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            names = re.findall(r"GLOBAL ([\w.]+)", str(error))
            if zipfile.is_zipfile(path):
                names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) or names
            if not names:
                raise
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            found = f"beside tensors it holds Python objects ({', '.join(names[:4])}{more}), which can run any code"
            advice = "where it was made, save the tensors alone: torch.save(model.state_dict(), 'weights.pth')"
            raise problem(path, found, advice) from None


@contextmanager
def damage_reported(path: Path):
    """Damage inside an archive surfaces as almost any exception of the unpickler or of the archive reader."""
    try:
        yield
    except UnreadableWeights:
        raise
    except Exception as error:
        raise problem(path, f"its content is damaged ({first_line(error)})", AGAIN) from error


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def allowed_globals() -> list:
    """Names beyond PyTorch's own that a checkpoint may mention, with what they become: NumPy's numbers, or a Record."""
    core = np._core if hasattr(np, "_core") else np.core
    scalar, rebuild = core.multiarray.scalar, core.multiarray._reconstruct
    dtypes = sorted({type(np.dtype(code)) for code in "?bBhHiIlLqQefdgFDU"}, key=repr)
    listed = [np.dtype, np.ndarray, *dtypes]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1 and 2 write different names
        listed += [(scalar, f"{module}.scalar"), (rebuild, f"{module}._reconstruct")]
    return listed + [(Record, name) for name in FOREIGN]


def unwrap(path: Path, content) -> tuple[dict[str, Tensor], dict]:
    """The state dict inside a checkpoint and the rest."""
    meta = {}
    while isinstance(content, Mapping):
        key = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        meta.update({name: value for name, value in content.items() if name != key})
        content = content[key]
    entries = content if isinstance(content, Mapping) else {}
    state = {name: value.detach() for name, value in entries.items() if isinstance(value, Tensor)}
    checked(path, state)
    if not state:
        kinds = ", ".join(f"{name}: {type(value).__name__}" for name, value in list(entries.items())[:5])
        found = f"it holds {type(content).__name__} {f'of {kinds}' if kinds else ''}".rstrip()
        advice = f"give a file with a dict from parameter names to tensors, bare or under one of {', '.join(WRAPPERS)}"
        raise problem(path, found, advice)
    meta.update({name: value for name, value in entries.items() if not isinstance(value, Tensor)})
    return strip_module(state), meta


def checked(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state, if its names can be printed and its tensors are plain and in proportion to what is stored.

    A view may show one stored number a billion times; copying it would fill the memory.
    """
    strange = [n for n in state if not isinstance(n, str) or not n.isprintable() or len(n) > LONGEST_NAME]
    if strange:
        found = f"the name of one of its tensors, {str(strange[0])[:60]!a}, is not one of parameters"
        raise problem(path, found, "save it again from the model, with state_dict()")
    odd = [n for n, t in state.items() if t.layout is not torch.strided or t.is_quantized or t.device.type != "cpu"]
    if odd:
        raise problem(path, f"{odd[0]} is a sparse, quantized or empty tensor", "save it as an ordinary dense tensor")
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    shown = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if shown > VIEWS * sum(storages.values()) + 2**26:
        found = f"its tensors show {shown:,} bytes, of which {sum(storages.values()):,} are stored"
        raise problem(path, found, "save it with contiguous tensors")
    return state


def strip_module(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix that DataParallel and DistributedDataParallel put before all of them."""
    while state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    digest = hashlib.sha256()
    with Path(path).expanduser().open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def state_hash(state: Mapping[str, Tensor]) -> str:
    """Twelve hex digits that name the weights: of sorted names, dtypes, shapes and bytes, whatever device or file."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def save_safetensors(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping | None = None) -> None:
    """Write tensors as safetensors, atomically; equal input gives equal bytes.

    ``metadata`` comes back as strings: text stays as it is, anything else is stored as JSON.  Tensors that share memory
    are stored once each.
    """
    notes = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()}
    apart = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    data = safetensors.torch.save(apart, notes)
    # safetensors writes the metadata in random order: sort the header.
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header = {key: dict(sorted(value.items())) if key == "__metadata__" else value for key, value in header.items()}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(path) as part:
        part.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
