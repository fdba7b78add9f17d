"""From prompts to classes: the score of a class is that of its best synonym."""

import torch
from torch import Tensor


def max_over_synonyms(words: Tensor, prompt_to_class: Tensor, classes: int) -> Tensor:
    """Class scores (B, K, h, w): the maximum over the prompts of each class.

    Args:
        words: scores (B, T, h, w) of the prompts.
        prompt_to_class: (T,) the class of each prompt.
        classes: K.  A class without prompts has the score 0.
    """
    if torch.equal(prompt_to_class, torch.arange(classes, device=prompt_to_class.device)):
        return words
    index = prompt_to_class[None, :, None, None].expand_as(words)
    shape = (len(words), classes, *words.shape[2:])
    return words.new_zeros(shape).scatter_reduce(1, index, words, "amax", include_self=False)
