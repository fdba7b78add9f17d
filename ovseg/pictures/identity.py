"""Which picture: the name of its file, and what distinguishes its bytes from those of any other."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DIGITS = 16
CHUNK = 2**22


@dataclass(frozen=True)
class PictureFile:
    """A picture that came as bytes.

    name  of the file, without folders
    size  in bytes
    hash  of the bytes: the first 16 hexadecimal digits of their SHA-256
    url   the address it was fetched from, without user and password; None for files
    """

    name: str
    size: int
    hash: str
    url: str | None = None

    @classmethod
    def of_bytes(cls, name: str, content: bytes, url: str | None = None) -> "PictureFile":
        url = url and re.sub(r"(?<=://)[^/?#]*@", "", url)
        return cls(name, len(content), hashlib.sha256(content).hexdigest()[:DIGITS], url)

    @classmethod
    def of_file(cls, path: str | Path) -> "PictureFile":
        """Read in pieces, for files of any size.

        Raises:
            OSError: it cannot be read.
        """
        return cls(Path(path).name, *file_hash(path))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "PictureFile":
        url = record.get("url")
        return cls(str(record["name"]), int(record["size"]), str(record["hash"]), None if url is None else str(url))

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value is not None}

    def is_same(self, other: "PictureFile") -> bool:
        """Whether the bytes are the same; names and addresses do not count."""
        return (self.size, self.hash) == (other.size, other.hash)


def file_hash(path: str | Path) -> tuple[int, str]:
    """Size in bytes, and hash as of ``PictureFile``."""
    sums, size = hashlib.sha256(), 0
    with Path(path).open("rb") as file:
        while piece := file.read(CHUNK):
            sums.update(piece)
            size += len(piece)
    return size, sums.hexdigest()[:DIGITS]
