"""What "none of the words" means: a declared policy instead of a prompt trick."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovseg.text.names import clean_words
from ovseg.text.splitting import split_words
from ovseg.text.stuff import STUFF_WORDS

BACKGROUND_NAME = "background"
KINDS = ("none", "threshold", "words")

_EXPECTED = (
    "Give 'none', a probability between 0 and 1 (pixels whose best class stays below it become background), 'words' "
    f"(the {len(STUFF_WORDS)} usual stuff names), or your own words such as 'sky, wall, road'."
)
_NO_WORDS = ("no", "off", "false", "null", "on", "yes", "true", "auto", "default", "word", "stuff")
_NUMBER = re.compile(r"([-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:e[-+]?\d+)?)\s*(%?)", re.IGNORECASE)


@dataclass(frozen=True)
class Background:
    """Policy for pixels that show none of the named classes. With any kind but "none", class 0 is "background".

    Args:
        kind: "none": every pixel takes its best class. "threshold": pixels whose best class probability is below
            ``threshold`` become class 0. "words": class 0 competes with the others through ``words``.
        threshold: probability in [0, 1]; required by "threshold", optional with "words". It is compared with a softmax
            over all queries, so it depends on the logit scale and on the number of words: never carry it over blindly.
        words: what describes class 0; required by "words". Without words, class 0 has no query of its own.
        chosen: whether somebody asked for it; a single class under a "none" that nobody chose is set against stuff, see
            ``text.contrast``. It is no part of equality, hash and ``to_dict``.

    Raises:
        ValueError: unknown kind, threshold outside [0, 1], a number among the words, or a field that the kind needs or
            forbids.
    """

    kind: str = "none"
    threshold: float | None = None
    words: tuple[str, ...] = ()
    chosen: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"background kind {self.kind!r} is unknown; expected {', '.join(KINDS)}. {_EXPECTED}")
        if isinstance(self.words, str):
            raise ValueError(f"background words must be a list of words, got the string {self.words!r}. {_EXPECTED}")
        object.__setattr__(self, "words", clean_words(self.words, "a background word"))
        numbers = [word for word in self.words if read_number(word) is not None]
        if numbers:
            raise ValueError(f"{numbers[0]!r} among the background words is a number, and no word. {_EXPECTED}")
        if self.threshold is not None:
            object.__setattr__(self, "threshold", _probability(self.threshold))
        if self.kind == "none" and (self.words or self.threshold is not None):
            raise ValueError(f"background kind 'none' takes neither words nor a threshold. {_EXPECTED}")
        if self.kind == "threshold" and self.threshold is None:
            raise ValueError(f"background kind 'threshold' needs a threshold. {_EXPECTED}")
        if self.kind == "words" and not self.words:
            raise ValueError(f"background kind 'words' needs at least one word. {_EXPECTED}")

    @classmethod
    def parse(cls, spec: Background | str | float | Sequence[str] | Mapping[str, Any] | None) -> Background:
        """Policy from what people write: None, "none", 0.3, "0.3", "0,3", "30%", "words", "sky, wall", a list of words,
        or a mapping with ``kind`` (may be left out), ``threshold`` and ``words``.

        Raises:
            ValueError: anything else.
        """
        if spec is None or isinstance(spec, Background):
            return spec or cls()
        if isinstance(spec, Mapping):
            return cls._from_mapping(spec)
        if isinstance(spec, (list, tuple)):
            return cls("words", words=tuple(spec))
        if isinstance(spec, str):
            return cls._from_text(spec.strip())
        if isinstance(spec, (int, float)) and not isinstance(spec, bool):
            return cls("threshold", threshold=spec)
        raise ValueError(f"cannot read a background policy from {spec!r} ({type(spec).__name__}). {_EXPECTED}")

    @classmethod
    def _from_text(cls, text: str) -> Background:
        if text.casefold() in ("none", ""):
            return cls(chosen=bool(text))
        if text.casefold() == "words":
            return cls("words", words=STUFF_WORDS)
        number = read_number(text)
        if number is not None:
            return cls("threshold", threshold=number)
        words = tuple(split_words(text).items)
        if text.casefold() in _NO_WORDS or not any(char.isalpha() for char in text):
            raise ValueError(f"cannot read a background policy from {text!r}. {_EXPECTED}")
        return cls("words", words=words)

    @classmethod
    def _from_mapping(cls, spec: Mapping[str, Any]) -> Background:
        known = ("kind", "threshold", "words")
        unknown = ", ".join(str(key) for key in spec if key not in known)
        if unknown:
            raise ValueError(f"unknown background key(s) {unknown}; expected {', '.join(known)}. {_EXPECTED}")
        threshold, words = spec.get("threshold"), spec.get("words") or ()
        kind = spec.get("kind") or ("words" if words else "none" if threshold is None else "threshold")
        return cls(kind, threshold, words if isinstance(words, str) else tuple(words))

    def to_dict(self) -> dict[str, Any]:
        """Fields as plain JSON values; ``Background.parse`` reads them back."""
        fields: dict[str, Any] = {"kind": self.kind}
        if self.threshold is not None:
            fields["threshold"] = self.threshold
        if self.words:
            fields["words"] = list(self.words)
        return fields


def read_number(text: str) -> float | None:
    """The number that a text is, with a decimal point or comma, perhaps in percent; None if it is none."""
    match = _NUMBER.fullmatch(unicodedata.normalize("NFKC", text).strip())
    return float(match[1].replace(",", ".")) / (100 if match[2] else 1) if match else None


def _probability(value: Any) -> float:
    number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")
    if not 0.0 <= number <= 1.0:
        percent = f" For {number:g} % give {number / 100:g}." if 1 < number <= 100 else ""
        raise ValueError(
            f"a background threshold must be a probability between 0 and 1, got {value!r}.{percent} {_EXPECTED}"
        )
    return number
