"""From words to classes: the best synonym speaks for its class."""

import torch
from torch import Tensor


def best_word(words: Tensor, query_class: Tensor, classes: int) -> Tensor:
    """Scores (B, K, h, w) of classes from those of words (B, T, h, w), whose classes are (T,): the best synonym.

    A class without words has the score 0.
    """
    if torch.equal(query_class, torch.arange(classes, device=query_class.device)):
        return words
    index = query_class[None, :, None, None].expand_as(words)
    shape = (len(words), classes, *words.shape[2:])
    return words.new_zeros(shape).scatter_reduce(1, index, words, "amax", include_self=False)
