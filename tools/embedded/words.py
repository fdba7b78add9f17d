"""What the labels of every source are called: name and synonyms, and which of them training must not see."""

from dataclasses import dataclass

import numpy as np
from photos import names as photo_names
from wordnet import imagenet_classes

from ovseg.datasets.scenes import spellings
from ovseg.text.vocabulary import Vocabulary


@dataclass
class Words:
    """Names and synonyms by label, the name first.

    coco      133 classes of ``coco_panoptic``
    scenes    112 names of the drawn scenes
    rooms     80 names of ``scenes32``
    objects   ImageNet class (of 1,000) of each of the 200 labels of ``objects64``
    held      labels of ``coco`` and of ``scenes`` whose pixels and names training never sees
    banned    lower-case spellings that no prompt of the joint training may hold
    """

    coco: list[list[str]]
    scenes: list[list[str]]
    rooms: list[list[str]]
    objects: list[int]
    held: dict[str, frozenset[int]]
    banned: frozenset[str]


def load_words(hold_out: int = 0) -> Words:
    """All lists; with ``hold_out`` n > 0, every n-th of the 133 names is kept out wherever it occurs."""
    scenes = spellings()
    synonyms = {group[0]: group for group in scenes}
    coco = [synonyms.get(name, [name]) for name in Vocabulary.parse("coco_panoptic").names]
    kept_out = range(hold_out - 1, len(coco), hold_out) if hold_out else ()
    banned = frozenset(word.lower() for label in kept_out for word in coco[label])
    held = {
        "coco": frozenset(kept_out),
        "scenes": frozenset(i for i, group in enumerate(scenes) if banned & {word.lower() for word in group}),
    }
    rooms = [group for group in photo_names("scenes32").values()]
    index = {synset: i for i, synset in enumerate(imagenet_classes())}
    objects = [index[folder] for folder in photo_names("objects64")]
    return Words(coco, scenes, rooms, objects, held, banned)


def pick(rng: np.random.Generator, groups: list[list[str]], synonym: float = 0.3) -> list[str]:
    """One spelling of each group, the name with probability 1 − ``synonym`` (always, where it is alone)."""
    return [g[0] if len(g) == 1 or rng.random() >= synonym else g[rng.integers(1, len(g))] for g in groups]
