"""What a soft-max over few words cannot say: a single class wins everywhere, and a low threshold never acts.

The probability of the best of T words is at least 1/T, so a threshold θ ≤ 1/T turns no pixel into background.
"""

import warnings
from collections.abc import Collection

from ovseg.text.background import BACKGROUND_NAME, Background
from ovseg.text.names import fold
from ovseg.text.stuff import stuff_without
from ovseg.text.vocabulary import Vocabulary


def contrasted(vocabulary: Vocabulary, known: Collection[str] | None = None) -> Vocabulary:
    """A single class without words of background is set against names of stuff, which become class 0; other
    vocabularies stay as they are, and so does a class whose policy "none" was chosen.

    Args:
        vocabulary: the words.
        known: lower-case words that the weights have learned, where they are limited to some.

    Warns:
        UserWarning: a single class, and what becomes of it.
    """
    policy = vocabulary.background
    start = int(policy.kind != "none")
    if len(vocabulary) - start != 1 or policy.words or fold(vocabulary.names[start]) == BACKGROUND_NAME:
        return vocabulary
    name = vocabulary.names[start]
    if policy.kind == "none" and policy.chosen:
        _warn(f"{name!r} is the only word and the background is 'none': every pixel becomes {name!r}.")
        return vocabulary
    named = (name, *vocabulary.synonyms[start])
    stuff = stuff_without(named, known) or stuff_without(named)
    threshold = "" if policy.threshold is None else f" The threshold {policy.threshold:g} acts on that soft-max."
    _warn(
        f"one word alone would take every pixel: {name!r} is set against {len(stuff)} names of stuff "
        f"({', '.join(stuff[:3])}, …), where they win is class 0, 'background'; the background 'none' turns this off, "
        f"words of your own replace them.{threshold}"
    )
    return vocabulary.replace_background(Background("words", policy.threshold, stuff))


def warn_idle_threshold(vocabulary: Vocabulary, threshold: float | None):
    """Warn of a threshold that the best word always reaches.

    Args:
        vocabulary: the words.
        threshold: of the probability in a soft-max over all words.
    """
    count = len(vocabulary.prompts)
    if (
        threshold is not None
        and (threshold > 0 or vocabulary.background.kind == "threshold")
        and threshold * count <= 1
    ):
        _warn(
            f"the threshold {threshold:g} cannot act: over {count} words the best has a probability of {1 / count:.3g} "
            f"or more. Give one above {1 / count:.3g}, or background words."
        )


def _warn(message: str):
    warnings.warn(message, UserWarning, stacklevel=4)
