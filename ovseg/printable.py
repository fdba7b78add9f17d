"""Text for terminals and streams: what stands in names is shown and never obeyed, and every stream can take it."""

import re
import sys
import unicodedata
from typing import TextIO

TURNS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def is_strange(char: str) -> bool:
    """Whether a character controls a terminal, ends a line, turns the way of writing or is half of one."""
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in TURNS


def printable(text: object) -> str:
    """The ``str`` of a value on one line: strange characters (``is_strange``) as escapes such as ``\\x1b`` and
    ``\\n``."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(char.encode("unicode_escape").decode("ascii") if is_strange(char) else char for char in text)


def say(*lines: object, error: bool = False) -> None:
    """Print lines, each ``printable``, on the standard output or the error stream, as its encoding allows."""
    stream = sys.stderr if error else sys.stdout
    print(*(encodable(printable(line), stream) for line in lines), sep="\n", file=stream, flush=True)


def say_json(line: str) -> None:
    """Print a line of JSON on the standard output: strange characters, and what its encoding lacks, as ``\\uXXXX``."""
    line = "".join(_escaped(char) if is_strange(char) else char for char in line)
    if encodable(line, sys.stdout) != line:
        line = re.sub(r"[^\x00-\x7f]", lambda found: _escaped(found[0]), line)
    print(line, flush=True)


def encodable(text: str, stream: TextIO) -> str:
    """The text with ``\\N`` escapes for what the encoding of a stream lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(char: str) -> str:
    """JSON's escape of a character: its UTF-16 units."""
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))
