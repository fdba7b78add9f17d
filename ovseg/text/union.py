"""Several vocabularies as one, whose classes are united by their names."""

from collections.abc import Sequence
from dataclasses import replace

from ovseg.text.background import BACKGROUND_NAME, Background
from ovseg.text.names import fold
from ovseg.text.palette import RGB
from ovseg.text.vocabulary import Vocabulary, default_colors


def unite(vocabularies: Sequence[Vocabulary]) -> tuple[Vocabulary, list[list[int]]]:
    """One vocabulary of all classes, in the order in which they come.

    Classes of one name, whatever its letter case, are one with the words of all; colors that were chosen are kept, the
    first first.  The words of background policies are taken together.

    Returns:
        the vocabulary, and for each of the given ones the new id of each of its classes.
    """
    first = vocabularies[0]
    if all(each.hash == first.hash for each in vocabularies):
        return first, [list(range(len(first)))] * len(vocabularies)
    policy = _policy([each.background for each in vocabularies])
    names: dict[str, str] = {}
    prompts: dict[str, dict[str, str]] = {}
    colors: dict[str, RGB] = {}
    for each in vocabularies:
        chosen = each.colors != default_colors(each.names)
        for name, words, color in zip(each.names, each.synonyms, each.colors, strict=True):
            key = fold(name)
            if chosen:
                colors.setdefault(key, color)
            if key == BACKGROUND_NAME and policy.kind != "none":
                continue
            names.setdefault(key, name)
            own = prompts.setdefault(key, {})
            for word in words:
                own.setdefault(fold(word), word)
    synonyms = tuple(tuple(prompts[key].values()) for key in names)
    united = Vocabulary(tuple(names.values()), synonyms).replace_background(policy)
    usual = zip(united.names, default_colors(united.names), strict=True)
    united = replace(united, colors=tuple(colors.get(fold(name), color) for name, color in usual))
    ids = {fold(name): index for index, name in enumerate(united.names)}
    return united, [[ids[fold(name)] for name in each.names] for each in vocabularies]


def _policy(policies: Sequence[Background]) -> Background:
    real = [each for each in policies if each.kind != "none"]
    words = tuple(dict.fromkeys(word for each in real for word in each.words))
    if not real:
        return policies[0]
    return real[0] if not words or all(each == real[0] for each in real) else Background("words", words=words)
