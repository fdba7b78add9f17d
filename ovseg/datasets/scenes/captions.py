"""Captions for composed scenes: the visible names, some as synonyms, inside a prompt template."""

import numpy as np

from ovseg.text.templates import IMAGENET_80

from .class_names import object_names, spellings

SHORT = (
    "{}.",
    "{}",
    "a photo of {}.",
    "a picture of {}.",
    "a scene with {}.",
    "there is {} in the scene.",
    "this is {}.",
)


def join(rng, things: list[str], stuff: list[str]) -> str:
    """``"a dog, a cat and a kite on grass"``."""
    text = " and ".join([", ".join(things[:-1]), things[-1]]) if len(things) > 1 else "".join(things)
    ground = " and ".join(stuff)
    if not (text and ground):
        return text or ground
    return f"{text} {rng.choice(['on', 'with', 'in front of', 'and'])} {ground}"


def caption(rng: np.random.Generator, labels: list[int], synonym: float = 0.35, with_stuff: float = 0.8) -> str:
    """A caption that names ``labels`` in random order.

    A name is replaced by a synonym with probability ``synonym``; stuff is mentioned with probability ``with_stuff``
    (always, where there is nothing else to name).
    """
    words, things, stuff = spellings(), [], []
    for label in rng.permutation(labels):
        names = words[label]
        name = names[0] if rng.random() >= synonym else names[rng.integers(1, len(names))]
        (things if label < len(object_names()) else stuff).append(name)
    if things and rng.random() >= with_stuff:
        stuff = []
    article = rng.choice(["a ", "the ", ""], p=[0.5, 0.2, 0.3])
    if rng.random() < 0.5:
        template = SHORT[rng.integers(len(SHORT))]
    else:
        template = IMAGENET_80[rng.integers(len(IMAGENET_80))].replace("a {}", "{}").replace("the {}", "{}")

    def spoken(name):
        return f"an {name[0:]}" if article == "a " and name[0] in "aeiou" else article + name

    return template.format(join(rng, [spoken(name) for name in things], stuff))
