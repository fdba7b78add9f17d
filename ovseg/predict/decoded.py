"""The label map of one picture, and how sure it is, for those who ask."""

from collections.abc import Callable, Iterator
from functools import cached_property

from torch import Tensor


class Decoded:
    """What ``Pipeline.decode`` returns.  Unpacks into labels, scores and margin.

    ``labels`` (H, W) int64 are there; the softmax over all words that ``scores`` and ``margin`` need is not, and is
    made when one of them is first read.  Until then the features of the picture stay in memory.

    Args:
        labels: before any threshold on the probability.
        confidence: makes scores and margin.
        below: threshold → where the score is below it, (H, W) bool; compares ``scores`` unless given.
    """

    def __init__(
        self,
        labels: Tensor,
        confidence: Callable[[], tuple[Tensor, Tensor]],
        below: Callable[[float], Tensor] | None = None,
    ):
        self.labels, self.confidence, self._below = labels, confidence, below

    @cached_property
    def _scores_and_margin(self) -> tuple[Tensor, Tensor]:
        return self.confidence()

    @property
    def scores(self) -> Tensor:
        """Probability of the winner, (H, W) float32 in [0, 1]."""
        return self._scores_and_margin[0]

    @property
    def margin(self) -> Tensor:
        """Its lead over the second class, (H, W) float32 in [0, 1]."""
        return self._scores_and_margin[1]

    def below(self, threshold: float) -> Tensor:
        """Where the probability of the winner is below a threshold, (H, W) bool; cheaper than ``scores``."""
        return self.scores < threshold if self._below is None else self._below(threshold)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.labels, self.scores, self.margin))
