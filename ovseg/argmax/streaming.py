"""The argmax over classes without ever holding B×K×H×W: classes stream through running maxima.

class score   m_c = max over the prompts of c of τ·s         (the softmax before the maximum over synonyms gives the
same: probability   p_c = exp(m_c − log Σ_prompts exp(τ·s))         it is monotone and its sum runs over all prompts)
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def class_chunks(prompt_to_class: Sequence[int], most: int) -> Iterator[slice]:
    """Ranges of at most ``most`` prompts that never separate the synonyms of a class.

    ``prompt_to_class`` is the class of each prompt, in non-decreasing order.
    """
    starts = [i for i, c in enumerate(prompt_to_class) if i == 0 or c != prompt_to_class[i - 1]]
    begin = 0
    for start, end in zip(starts, [*starts[1:], len(prompt_to_class)], strict=True):
        if end - begin > most and start > begin:
            yield slice(begin, start)
            begin = start
    yield slice(begin, len(prompt_to_class))


def resize_rows(
    maps: Tensor, size: tuple[int, int], rows: tuple[int, int], source: tuple[int, int] | None = None
) -> Tensor:
    """Rows [a, b) of the bilinear enlargement (align_corners False) of maps (…, C, h, w) to ``size`` (H, W).

    Equal to ``F.interpolate(maps, size, mode="bilinear")[..., a:b, :]`` without computing the other rows.  If ``maps``
    is itself a band, ``source`` is (its first row, h of the full map).
    """
    first, h = source or (0, maps.shape[-2])
    if rows == (0, size[0]) and (first, h) == (0, maps.shape[-2]):
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)
    low, high, part = _sample_rows(h, size[0], rows, maps.device)
    band = maps[..., low - first, :] * (1 - part) + maps[..., high - first, :] * part
    return F.interpolate(band, (rows[1] - rows[0], size[1]), mode="bilinear", align_corners=False)


def source_rows(h: int, height: int, rows: tuple[int, int]) -> tuple[int, int]:
    """The rows [a, b) of an h-row map that ``resize_rows`` reads for rows [a, b) of its enlargement to ``height``."""
    low, high, _ = _sample_rows(h, height, (rows[0], rows[1]), torch.device("cpu"))
    return int(low[0]), int(high[-1]) + 1


def _sample_rows(h: int, height: int, rows: tuple[int, int], device: torch.device):
    """The two source rows of each target row and the weight (rows, 1) of the second."""
    y = ((torch.arange(*rows, device=device, dtype=torch.float32) + 0.5) * (h / height) - 0.5).clamp(min=0)
    low = y.long().clamp(max=h - 1)
    return low, (low + 1).clamp(max=h - 1), (y - low)[:, None]


class RunningArgmax:
    """Best and second-best class and the log of the softmax denominator, updated by ranges of prompts.

    Args:
        shape: (H, W) of the maps.
        exclude: classes that may not win (their prompts still count in the softmax).
    """

    def __init__(self, shape: tuple[int, int], device, exclude: frozenset[int] = frozenset()):
        self.labels = torch.zeros(shape, dtype=torch.long, device=device)
        self.best = torch.full(shape, -torch.inf, device=device)
        self.second = torch.full(shape, -torch.inf, device=device)
        self.log_sum = torch.full(shape, -torch.inf, device=device)
        self.exclude = exclude

    def update(self, logits: Tensor, classes: Sequence[int]):
        """``logits``: (C, H, W) of C prompts, scaled; ``classes``: the class of each, in non-decreasing order."""
        self.log_sum = torch.logaddexp(self.log_sum, logits.logsumexp(0))
        ids = [c for c in dict.fromkeys(classes) if c not in self.exclude]
        if not ids:
            return
        if len(set(classes)) < len(classes) or len(ids) < len(classes):
            index = torch.tensor(classes, device=logits.device)
            logits = torch.stack([logits[index == c].amax(0) for c in ids])
        top, where = logits.max(0)
        rest = logits.scatter(0, where[None], -torch.inf).amax(0)
        better = top > self.best
        self.second = torch.maximum(torch.where(better, self.best, self.second), torch.where(better, rest, top))
        self.best = torch.where(better, top, self.best)
        self.labels = torch.where(better, torch.tensor(ids, device=logits.device)[where], self.labels)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (H, W) int64, probability of the winner, and its margin over the second: (H, W) float32 in [0, 1]."""
        p = (self.best - self.log_sum).exp()
        return self.labels, p, p - (self.second - self.log_sum).exp()
