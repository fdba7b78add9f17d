"""What a soft-max over few words cannot say: a single class wins everywhere, and a low threshold never acts.

The probability of the best of T words is at least 1/T, so a threshold θ ≤ 1/T turns no pixel into background.
"""

from collections.abc import Collection

from ovseg.text.background import BACKGROUND_NAME, Background
from ovseg.text.names import fold, shortened
from ovseg.text.stuff import stuff_without
from ovseg.text.vocabulary import Vocabulary


def contrasted(vocabulary: Vocabulary, known: Collection[str] | None = None) -> tuple[Vocabulary, str]:
    """A single class without words of background is set against names of stuff, which become class 0; other
    vocabularies stay as they are, and so does a class whose policy "none" was chosen.

    Args:
        vocabulary: the words.
        known: lower-case words that the weights have learned, where they are limited to some.

    Returns:
        The vocabulary to predict with, and what is to be said of it, empty if nothing.
    """
    policy = vocabulary.background
    start = int(policy.kind != "none")
    if len(vocabulary) - start != 1 or policy.words or fold(vocabulary.names[start]) == BACKGROUND_NAME:
        return vocabulary, ""
    name = shortened(vocabulary.names[start])
    if policy.kind == "none" and policy.chosen:
        return vocabulary, f"{name!r} is the only word and the background is 'none': every pixel becomes {name!r}."
    named = (vocabulary.names[start], *vocabulary.synonyms[start])
    stuff = stuff_without(named, known) or stuff_without(named)
    threshold = "" if policy.threshold is None else f" The threshold {policy.threshold:g} acts on that soft-max."
    note = (
        f"one word alone would take every pixel: {name!r} is set against {len(stuff)} names of stuff "
        f"({', '.join(stuff[:3])}, …), and where they win is class 0, 'background'. Background words of your own "
        f"replace them, 'none' turns this off.{threshold}"
    )
    return vocabulary.replace_background(Background("words", policy.threshold, stuff)), note


def idle_threshold(vocabulary: Vocabulary, threshold: float) -> str:
    """What is to be said of a threshold that the best word always reaches; empty for any other.

    Args:
        vocabulary: the words.
        threshold: of the probability in a soft-max over all words.
    """
    count = len(vocabulary.prompts)
    asked = threshold > 0 or vocabulary.background.threshold is not None
    if not asked or threshold * count > 1:
        return ""
    return (
        f"the threshold {threshold:g} cannot act: over {count} words the best has a probability of {1 / count:.3g} or "
        f"more. Give one above {1 / count:.3g}, or background words."
    )
