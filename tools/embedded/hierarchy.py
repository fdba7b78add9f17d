"""Random cuts of WordNet's tree over the 1,000 ImageNet classes: a photograph's names at every level.

A cut is a set of nodes, none above another.  The teacher's probability of a node is the sum over its classes, so every
cut is a classification with soft targets, and its names (any lemma of a node) are words and hypernyms at once.
"""

import numpy as np
import torch
from wordnet import WordNet, imagenet_classes, imagenet_lemmas


class Hierarchy:
    """The tree: every node's classes, children and lemmas.

    Args:
        wordnet: the nouns.
        banned: lower-case words that are never used as a name.
    """

    def __init__(self, wordnet: WordNet, banned: frozenset[str] = frozenset()):
        self.classes = imagenet_classes()
        self.members: dict[str, set[int]] = {}
        self.children: dict[str, set[str]] = {}
        self.lemmas: dict[str, list[str]] = {}
        for index, synset in enumerate(self.classes):
            chain = [synset, *wordnet.hypernyms(wordnet.imagenet[synset])]
            for below, above in zip(chain, chain[1:], strict=False):
                self.children.setdefault(above, set()).add(below)
            for node in chain:
                self.members.setdefault(node, set()).add(index)
            self.root = chain[-1]
        for node in self.members:
            names = imagenet_lemmas()[node] if node in imagenet_lemmas() else wordnet.synsets[node][0]
            self.lemmas[node] = [n for n in names if n.lower() not in banned and " of " not in n]

    def cut(self, rng: np.random.Generator, wanted: set[int], size: int) -> list[str]:
        """At most ``size`` nodes with names, none above another; those of the ``wanted`` classes among them."""
        leaf = rng.uniform(0.5, 0.95)  # how far down this cut tends to go
        open_, nodes = [self.root], []
        while open_:
            node = open_.pop()
            below, count = self.children.get(node), len(self.members[node])
            wide = below and (count > 150 or len(below) == 1 or not self.lemmas[node])
            if below and (wide or rng.random() < leaf):
                open_ += sorted(below)
            elif self.lemmas[node]:
                nodes.append(node)
        nodes = [nodes[i] for i in rng.permutation(len(nodes))]
        nodes.sort(key=lambda node: not (self.members[node] & wanted))
        return nodes[:size]

    def targets(self, nodes: list[str]) -> torch.Tensor:
        """(1000, n) float: which classes belong to which node of a cut."""
        table = torch.zeros(len(self.classes), len(nodes))
        for column, node in enumerate(nodes):
            table[sorted(self.members[node]), column] = 1
        return table

    def names(self, rng: np.random.Generator, nodes: list[str]) -> list[str]:
        """One lemma for each node: the usual one half of the time."""
        return [n[0] if rng.random() < 0.5 else n[rng.integers(len(n))] for n in (self.lemmas[node] for node in nodes)]
