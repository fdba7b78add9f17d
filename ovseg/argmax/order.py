"""An order of prompts that depends on what they are, not on how they were listed.

Sums over prompts, and what becomes of equal scores, depend on the order of the prompts.  In this one, the same prompts
give the same map, bit for bit, whatever their order was.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def canonical_order(
    text: Tensor, prompt_to_class: Sequence[int], keep_first: bool = False
) -> tuple[list[int], list[int], list[int]]:
    """Classes by their prompts, and the prompts of each class, in the order of the bytes of their embeddings.

    Args:
        text: (T, E) embeddings.
        prompt_to_class: class of each prompt, in non-decreasing order.
        keep_first: class 0 stays in front, where it means something.

    Returns:
        the prompts in their new order, (T,); the new class of each, non-decreasing, (T,); and for every new class the
        one it was, (K,), up to the largest; classes without prompts stay what they are.
    """
    rows = np.ascontiguousarray(text.detach().float().cpu().numpy())
    by_bytes = np.argsort(rows.view(f"S{rows.shape[1] * rows.itemsize}")[:, 0], kind="stable").tolist()
    members: dict[int, list[int]] = {}
    for prompt in by_bytes:  # classes come in the order of their first prompts
        members.setdefault(prompt_to_class[prompt], []).append(prompt)
    classes = list(members)
    if keep_first and 0 in members:
        classes = [0, *(each for each in classes if each != 0)]
    former = list(range(max(classes) + 1))
    order, renamed = [], []
    for new, old in zip(sorted(classes), classes, strict=True):
        former[new] = old
        order += members[old]
        renamed += [new] * len(members[old])
    return order, renamed, former


def in_former_classes(labels: Tensor, former: Sequence[int]) -> Tensor:
    """Labels (H, W) of new classes as those that they were."""
    return torch.tensor(former, device=labels.device)[labels]
