"""What "none of the words" means: a declared policy instead of a prompt trick."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovseg.text.names import clean_words

BACKGROUND_NAME = "background"
KINDS = ("none", "threshold", "words")

# The stuff names with which SCLIP (Wang et al., ECCV 2024) and others describe class 0 of VOC21 and COCO-Object.
STUFF_WORDS = tuple(
    (
        "sky, wall, tree, wood, grass, road, sea, river, mountain, sands, desk, bed, building, cloud, lamp, door, "
        "window, wardrobe, ceiling, shelf, curtain, stair, floor, hill, rail, fence"
    ).split(", ")
)

_EXPECTED = (
    "Give 'none', a probability between 0 and 1 (pixels whose best class stays below it become background), 'words' "
    f"(the {len(STUFF_WORDS)} usual stuff names), or your own words such as 'sky, wall, road'."
)


@dataclass(frozen=True)
class Background:
    """Policy for pixels that show none of the named classes. With any kind but "none", class 0 is "background".

    Args:
        kind: "none": every pixel takes its best class. "threshold": pixels whose best class probability is below
            ``threshold`` become class 0. "words": class 0 competes with the others through ``words``.
        threshold: probability in [0, 1]; required by "threshold", optional with "words". It is compared with a softmax
            over all queries, so it depends on the logit scale and on the number of words: never carry it over blindly.
        words: what describes class 0; required by "words". Without words, class 0 has no query of its own.

    Raises:
        ValueError: unknown kind, threshold outside [0, 1], or a field that the kind needs or forbids.
    """

    kind: str = "none"
    threshold: float | None = None
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"background kind {self.kind!r} is unknown; expected {', '.join(KINDS)}. {_EXPECTED}")
        if isinstance(self.words, str):
            raise ValueError(f"background words must be a list of words, got the string {self.words!r}. {_EXPECTED}")
        object.__setattr__(self, "words", clean_words(self.words, "a background word"))
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
        """Policy from what people write: None, "none", 0.3, "0.3", "words", "sky, wall", a list of words, or a mapping
        with the fields of this class (``kind`` may be left out).

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
            return cls()
        if text.casefold() == "words":
            return cls("words", words=STUFF_WORDS)
        try:
            number = float(text)
        except ValueError:
            return cls("words", words=tuple(text.split(",")))
        return cls("threshold", threshold=number)

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


def _probability(value: Any) -> float:
    number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"a background threshold must be a probability between 0 and 1, got {value!r}. {_EXPECTED}")
    return number
