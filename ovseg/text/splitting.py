"""How a text of several names is cut into names, and what is no part of a name.

Commas, semicolons (full-width and ideographic ones too), line breaks and dots that stand alone (``bus . owl .``)
separate; a dot inside or at the end of a word never does (``St. Bernard``). What stands in quotes is never cut.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ovseg.text.names import visible

COMMAS, SEMICOLONS = ",，、､﹐﹑،", ";；؛"
QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "„": "“”", "‘": "’", "«": "»", "「": "」", "『": "』"}
BRACKETS = {"[": "]", "(": ")"}

_LONE_DOT = r"(?<!\S)\.(?!\S)"
_SEPARATOR = re.compile(rf"[{COMMAS}{SEMICOLONS}\n]|{_LONE_DOT}")
_IN_A_LINE = re.compile(rf"[{COMMAS}{SEMICOLONS}|]")
_BULLET = re.compile(r"[-*+•‣▪·–—]\s+")
_NUMBER = re.compile(r"\(?(\d{1,6})(?:\s*[.:)\]]\s+|\s*\t\s*)(?=\S)")
_TIGHT_NUMBER = re.compile(r"\(?(\d{1,6})\s*[.:)\]]\s*(?=[^\d\s])")
_BARE_NUMBER = re.compile(r"(\d{1,6})\s+(?=[^\d\s])")
_COMMENT = re.compile(r"^[ \t]*(#|//).*$|[ \t]#(?!\d).*$", re.MULTILINE)
_AFTER_QUOTE = re.compile(rf"[ \t]*(?:$|[|\n{COMMAS}{SEMICOLONS}]|\.(?!\S))")
_LONGEST_QUOTE = 300


class Names(NamedTuple):
    """Names as written, quotes included, and what was guessed about them, in words."""

    items: list[str]
    notes: list[str]


def split_words(text: str) -> Names:
    """The names in a text; ``|`` between synonyms is left in them."""
    text, notes = "\n".join(visible(text).strip().splitlines()), []
    if "\n" in text:
        text = without_comments(text)
    inside, ends = text[1:-1], BRACKETS.get(text[:1], QUOTES.get(text[:1], ""))
    if ends and text[-1] in ends and not set(inside) & {text[0], *ends} and len(_cut(inside, _SEPARATOR)) > 1:
        if text[0] in QUOTES:
            notes.append("the quotes around the whole list are left out")
        text = inside
    pieces, kinds, between = _cut(text, _SEPARATOR), set(), ""
    items = []
    for piece, separator in pieces:
        if piece.strip():
            if items and between:
                kinds.add(_kind(between))
            items.append(piece.strip())
            between = ""
        between += separator
    if len(kinds) > 1:
        notes.append(f"{' and '.join(sorted(kinds))} alike separate classes, '|' joins synonyms")
    if len(items) == 1 and items[0].endswith(".") and re.search(r"\S\.\s+\S", items[0]):
        notes.append(f"{items[0]!r} is one name: only dots with spaces on both sides separate")
    numbered, more = without_numbers(items)
    return Names(numbered, notes + more)


def without_numbers(items: Sequence[str], bare: bool = False) -> Names:
    """Names without bullets and numbers before them.

    Args:
        items: names as written.
        bare: also numbers without a mark, ``0 bus``, where they count from 0 or 1 and all names have one.
    """
    items = [_BULLET.sub("", item.strip(), count=1) for item in items]
    for pattern in (_TIGHT_NUMBER, _BARE_NUMBER)[: 1 + bare]:
        matches = [pattern.match(item) for item in items]
        if matches and all(matches):
            numbers = [int(match[1]) for match in matches]
            rests = [item[match.end() :] for item, match in zip(items, matches, strict=True)]
            first = min(numbers)
            counted = sorted(numbers) == list(range(first, first + len(items))) and len(set(rests)) == len(rests)
            sure = first <= 1 or len(items) > 1 if pattern is _TIGHT_NUMBER else first <= 1 < len(items)
            if counted and sure:
                order = sorted(range(len(items)), key=numbers.__getitem__)
                return Names([rests[i] for i in order], [_numbers_note(items[order[0]], rests[order[0]])])
    rests = [_NUMBER.sub("", item, count=1) for item in items]
    changed = [pair for pair in zip(items, rests, strict=True) if pair[0] != pair[1]]
    return Names(rests, [_numbers_note(*changed[0])] if changed else [])


def words_of(item: str) -> list[str]:
    """A name and its synonyms, ``"cat|kitten"``, without quotes."""
    return [unquote(piece) for piece, _ in _cut(item, re.compile(r"\|"))]


def words_of_line(line: str) -> list[list[str]]:
    """The classes on a line of a file: each a name with its synonyms, separated by commas, semicolons or ``|``; dots
    that stand alone separate classes."""
    classes = [piece for piece, _ in _cut(line, re.compile(_LONE_DOT)) if piece.strip()]
    return [[unquote(piece) for piece, _ in _cut(each, _IN_A_LINE) if piece.strip()] for each in classes]


def unquote(word: str) -> str:
    """A word without the quotes around it."""
    word = word.strip()
    return word[1:-1].strip() if len(word) > 1 and _quoted(word, 0) == len(word) else word


def without_comments(text: str) -> str:
    """Lines without what follows a ``#``, at the start or after a space (``player #7`` is a name), or starts with
    ``//``."""
    return _COMMENT.sub("", text)


def _cut(text: str, separator: re.Pattern) -> list[tuple[str, str]]:
    """(piece, separator after it), quoted parts uncut."""
    pieces, start, at, before = [], 0, 0, "|"
    if QUOTES.keys().isdisjoint(text):
        for match in separator.finditer(text):
            pieces.append((text[start : match.start()], match[0]))
            start = match.end()
        return [*pieces, (text[start:], "")]
    while at < len(text):
        if before in "|:.)-*" and (end := _quoted(text, at)):
            at, before = end, '"'
            continue
        match = separator.match(text, at)
        if match:
            pieces.append((text[start:at], match[0]))
            start = at = match.end()
            before = "|"
            continue
        before = before if text[at].isspace() else text[at]
        at += 1
    return [*pieces, (text[start:], "")]


def _quoted(text: str, at: int) -> int | None:
    """Where the quoted part that begins here ends, if nothing but a separator follows it."""
    closers = QUOTES.get(text[at : at + 1])
    if closers is None:
        return None
    for end in range(at + 2, min(len(text), at + _LONGEST_QUOTE)):
        if text[end] == "\n":
            return None
        if text[end] in closers and _AFTER_QUOTE.match(text, end + 1):
            return end + 1
    return None


def _kind(separators: str) -> str:
    if "\n" in separators:
        return "line breaks"
    marks = {COMMAS: "commas", SEMICOLONS: "semicolons"}
    return next((kind for chars, kind in marks.items() if separators[0] in chars), "dots")


def _numbers_note(item: str, rest: str) -> str:
    return f"numbers before the names are left out ({item!r} is {rest!r}); ids count from 0"
