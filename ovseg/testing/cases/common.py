"""The table of cases and what they share: ``CASES[key](golden)`` → arrays by name."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ovseg.score import CosineScore

CASES: dict[str, Callable] = {}


def case(function: Callable | None = None, *, inputs: tuple[str, ...] = ()):
    """Register a case under its function's name; ``inputs`` are arrays it may read besides image and text.

    A name that ends in ``/`` stands for all arrays that begin with it.
    """

    def register(function):
        function.inputs = inputs
        CASES[function.__name__] = function
        return function

    return register if function is None else register(function)


def words(golden) -> Tensor:
    """Unit text embeddings (T, E)."""
    return F.normalize(golden.input("text").float(), dim=-1)


def features_and_logits(golden, dense, tower=None) -> dict[str, Tensor]:
    out = dense(tower or golden.tower(), golden.input("image"))
    return {"features": out.features, "logits": CosineScore()(out, words(golden)), "cls": out.embedding}
