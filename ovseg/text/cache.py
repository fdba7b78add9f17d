"""Text embeddings on disk: 80 prompts per word are slow to encode and never change for the same weights and templates.

    <folder>/<weights identity>-<templates hash>/<random>.safetensors      "embeddings" (n, E) float32 + the n words
                                                                           + a checksum of both and of the key

Every ``put`` writes one immutable pack under a temporary name, waits until it is on the disk and renames it, so readers
and writers in other processes never see half a file. What does not match its checksum, or is not finite, is encoded
again. Packs are only ever replaced by a larger pack that already holds their words, which makes merging
safe without locks: whoever finds a pack gone finds its words in a newer one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ovseg.files import DRAFT_SECONDS, atomic_write

if TYPE_CHECKING:
    from torch import Tensor

MAX_PACKS = 64
_RETRIES = 20  # how often a reader starts over while other processes merge; then a word merely counts as unknown


def default_cache_folder() -> Path:
    """``$OVSEG_CACHE``, else the platform's cache folder: ``~/.cache/ovseg``, ``~/Library/Caches/ovseg`` on macOS,
    ``%LOCALAPPDATA%\\ovseg`` on Windows."""
    if os.environ.get("OVSEG_CACHE"):
        return Path(os.environ["OVSEG_CACHE"]).expanduser()
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"]) / "ovseg"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ovseg"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ovseg"


class EmbeddingCache:
    """Embeddings of words, kept per weights and templates. Trouble with the disk costs time, never a result: it is
    warned of once, and what cannot be read or written is encoded again.

    Args:
        folder: where the packs lie. Left out: ``default_cache_folder() / "text"``.
    """

    def __init__(self, folder: str | Path | None = None):
        self.folder = default_cache_folder() / "text" if folder is None else Path(folder).expanduser()
        self._warned = False
        self._indexes: dict[Path, _Index] = {}

    def get(self, weights: str, templates: str | Sequence[str], words: Sequence[str]) -> dict[str, Tensor]:
        """Those of the words that are known, each as (E,) float32 on the CPU.

        Args:
            weights: identity of the tower (``TowerCard.identity``). Empty: unknown weights, for which nothing is kept.
            templates: the prompt templates, or any text that stands for them.
            words: exact spellings; their order does not matter.
        """
        if not weights:
            return {}
        shelf = self._shelf(weights, templates)
        index = self._indexes.setdefault(shelf, _Index(shelf, _identity(weights, templates)))
        try:
            return index.read(words, self._warn)
        except OSError as error:
            self._warn(f"cannot read the text embedding cache {shelf} ({error}); words are encoded again.")
            return {}

    def put(self, weights: str, templates: str | Sequence[str], embeddings: Mapping[str, Tensor]) -> None:
        """Keep the embeddings, each (E,), under the same keys as ``get``.

        Raises:
            ValueError: embeddings that are not finite vectors of one length.
        """
        import torch

        if not embeddings or not weights:
            return
        rows = [torch.as_tensor(row).detach() for row in embeddings.values()]
        if any(row.ndim != 1 or row.shape != rows[0].shape or not bool(torch.isfinite(row).all()) for row in rows):
            shapes = ", ".join(sorted({str(tuple(row.shape)) for row in rows}))
            raise ValueError(f"a cache entry must be one finite vector (E,) per word, all of one length; got {shapes}.")
        shelf, identity = self._shelf(weights, templates), _identity(weights, templates)
        try:
            _write_pack(shelf, identity, list(embeddings), torch.stack(rows).to("cpu", torch.float32))
            if len(_list_packs(shelf)) > MAX_PACKS:
                _merge(shelf, identity, self._warn)
        except OSError as error:
            self._warn(f"cannot write the text embedding cache {shelf} ({error}); OVSEG_CACHE names another folder.")

    def __getstate__(self) -> dict:  # another process looks into the folder itself
        return vars(self) | {"_indexes": {}}

    def _shelf(self, weights: str, templates: str | Sequence[str]) -> Path:
        name = "".join(c if c.isalnum() else "_" for c in weights)[:16]
        return self.folder / f"{name}-{_digest(templates)[:12]}"

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(message, RuntimeWarning, stacklevel=4)


class _Index:
    """Which pack and row holds each word of one shelf; follows the folder's listing."""

    def __init__(self, shelf: Path, identity: dict[str, str]):
        self.shelf, self.identity = shelf, identity
        self.packs: dict[Path, list[str]] = {}
        self.places: dict[str, tuple[Path, int]] = {}

    def read(self, words: Sequence[str], warn: Callable[[str], None]) -> dict[str, Tensor]:
        rows_of_words: dict[str, Tensor] = {}
        for _ in range(_RETRIES):
            self._refresh(warn)
            wanted: dict[Path, dict[str, int]] = {}
            places = self.places  # other threads may put another in its place
            for word in set(words) & places.keys() - rows_of_words.keys():
                pack, row = places[word]
                wanted.setdefault(pack, {})[word] = row
            if not wanted:
                break
            for pack, rows in wanted.items():
                content = _read_pack(pack, self.identity, warn)
                if content is not None:
                    rows_of_words |= {word: content[1][row].clone() for word, row in rows.items()}
        return rows_of_words

    def _refresh(self, warn: Callable[[str], None]) -> None:
        """Bring the index up to the folder's listing, until nothing was lost between two listings: one taken while
        another process merges may show packs that are gone a moment later, or miss both the old and the new one."""
        previous = None
        for _ in range(_RETRIES):
            listed = set(_list_packs(self.shelf))
            if listed != self.packs.keys():
                self._index(listed, warn)
            if previous is not None and previous <= listed:
                return
            previous = listed

    def _index(self, listed: set[Path], warn: Callable[[str], None]) -> None:
        packs = {pack: words for pack, words in self.packs.items() if pack in listed}
        for pack in listed - packs.keys():
            content = _read_pack(pack, self.identity, warn, table=False)
            if content is not None:
                packs[pack] = content[0]
        self.packs = packs
        # Made anew, since a word may lie in several packs and must survive the loss of one of them.
        self.places = {word: (pack, row) for pack, words in packs.items() for row, word in enumerate(words)}


def _identity(weights: str, templates: str | Sequence[str]) -> dict[str, str]:
    """The whole key, of which folder names hold only the beginning."""
    return {"weights": weights, "templates": _digest(templates)}


def _digest(templates: str | Sequence[str]) -> str:
    content = templates if isinstance(templates, str) else list(templates)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _list_packs(shelf: Path) -> list[Path]:
    try:
        names = os.listdir(shelf)
        return [shelf / name for name in names if name.endswith(".safetensors") and not name.startswith(".")]
    except FileNotFoundError:
        return []


def _write_pack(shelf: Path, identity: dict[str, str], words: Sequence[str], table: Tensor) -> Path:
    from safetensors.torch import save

    pack, table = shelf / f"{uuid.uuid4().hex}.safetensors", table.contiguous()
    meta = {**identity, "words": json.dumps(list(words))}
    content = save({"embeddings": table}, meta | {"checksum": _checksum(meta, table)})
    with atomic_write(pack, durable=True) as draft:
        draft.write_bytes(content)
    return pack


def _checksum(meta: Mapping[str, str], table: Tensor) -> str:
    """Of the key, the words and the bytes of their embeddings."""
    sums = hashlib.sha256(json.dumps([meta["weights"], meta["templates"], meta["words"], list(table.shape)]).encode())
    sums.update(table.numpy().tobytes())
    return sums.hexdigest()


def _read_pack(
    pack: Path, identity: dict[str, str], warn: Callable[[str], None], table: bool = True
) -> tuple[list[str], Tensor | None] | None:
    """Words and, if asked for, the (n, E) table; no words and no table for a pack of another key.

    None for a pack that is gone or damaged; a damaged one is deleted, since its words are encoded again anyway.
    """
    try:
        # One open file from header to data: it stays whole even if a merge unlinks the pack meanwhile, which a reader
        # that maps the path a second time would trip over.
        with pack.open("rb") as file:
            words, meta = _read_header(file)
            if any(meta.get(key) != value for key, value in identity.items()):
                return [], None
            if "checksum" not in meta:  # of an early version: nothing tells whether it is sound
                _remove(pack)
                return None
            return words, _read_table(file, meta) if table else None
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        warn(f"damaged text embedding pack {pack} ({error}) is dropped; its words are encoded again.")
        _remove(pack)
        return None


def _read_header(file: BinaryIO) -> tuple[list[str], dict[str, str]]:
    """Words and metadata of a safetensors file, without its data: 8 bytes of length, JSON, tensors."""
    total = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= total - 8:
        raise ValueError("no header")
    header = json.loads(file.read(length))
    meta, entry = header["__metadata__"], header["embeddings"]
    words = json.loads(meta["words"])
    if entry["shape"][0] != len(words) or 8 + length + entry["data_offsets"][1] != total:
        raise ValueError("incomplete data")
    return words, meta


def _read_table(file: BinaryIO, meta: Mapping[str, str]) -> Tensor:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    file.seek(0)
    try:
        table = load(file.read())["embeddings"]
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    if table.dtype != torch.float32 or table.ndim != 2 or _checksum(meta, table) != meta["checksum"]:
        raise ValueError("its checksum differs")
    if not bool(torch.isfinite(table).all()):
        raise ValueError("it holds numbers that are not finite")
    return table


def _merge(shelf: Path, identity: dict[str, str], warn: Callable[[str], None]) -> None:
    """One pack for all. The old ones are deleted only after the new one, which holds all they held, is in place."""
    import torch

    merged: dict[str, Tensor] = {}
    packs = []
    for pack in _list_packs(shelf):
        content = _read_pack(pack, identity, warn)
        if content is not None and content[1] is not None:
            merged |= dict(zip(content[0], content[1], strict=True))
            packs.append(pack)
    if len(packs) > 1:
        _write_pack(shelf, identity, list(merged), torch.stack(list(merged.values())))
        for pack in packs:
            _remove(pack)
    for draft in list(shelf.glob("*.tmp")):
        _remove(draft, older_than=DRAFT_SECONDS)  # left by a killed writer of an early version


def _remove(path: Path, older_than: float = float("-inf")) -> None:
    """Delete a file if it is there, may be deleted, and was last written at least so many seconds ago."""
    try:
        if time.time() - path.stat().st_mtime >= older_than:
            path.unlink()
    except OSError:
        pass  # gone already, read-only, or open elsewhere on Windows: the next merge comes by again
