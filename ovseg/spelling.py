"""What a misspelled word was probably meant to be: one answer for names, arguments, settings, classes and files."""

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher


def nearest(word: str, options: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """Up to ``count`` of the options that resemble a word, the most similar first; letter case does not matter.

    Args:
        word: as it was written.
        options: what it could have been; of a mapping the keys are returned and the values compared.
        cutoff: the least similarity, ``difflib``'s ratio in [0, 1].
    """
    pairs = options.items() if isinstance(options, Mapping) else ((option, option) for option in options)
    matcher, ratios = SequenceMatcher(b=word.casefold()), {}
    for option, spelling in pairs:
        matcher.set_seq1(spelling.casefold())
        if min(matcher.real_quick_ratio(), matcher.quick_ratio()) >= cutoff:  # upper bounds, quickly computed
            ratios[option] = matcher.ratio()
    near = (option for option, ratio in ratios.items() if ratio >= cutoff)
    return sorted(near, key=lambda option: (-ratios[option], option))[:count]


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """``"Did you mean 'x'? "`` for the option nearest to a misspelled word, or an empty string if none is near."""
    near = nearest(word, list(options), count=1)
    return f"Did you mean {near[0]!r}? " if near else ""
