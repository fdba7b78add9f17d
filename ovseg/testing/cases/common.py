"""The table of cases and what they share: ``CASES[key](golden)`` → arrays by name."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ovseg.score import CosineScore

CASES: dict[str, Callable] = {}


def case(function: Callable | None = None, *, inputs: tuple[str, ...] = ()):
    """Register a case under its function's name; ``inputs`` are arrays it may read besides image and text.

    A name that ends in ``/`` stands for all arrays that begin with it, and ``*`` for anything: ``*/masks``.
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


@dataclass(frozen=True)
class Case:
    """One case of a ``trained_*`` file, whose arrays are named ``<case>/…`` and ``w/<case>/…``."""

    golden: object
    name: str

    @property
    def settings(self) -> dict:
        return self.golden.meta["cases"][self.name]

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.golden.under(f"w/{self.name}/")

    def has(self, *names: str) -> bool:
        """Whether the file contains these arrays of the case."""
        return all(f"{self.name}/{name}" in self.golden.arrays for name in names)

    @property
    def empty(self) -> bool:
        """Whether the file contains only the settings of the case."""
        return not any(name.startswith((f"{self.name}/", f"w/{self.name}/")) for name in self.golden.arrays)

    def input(self, name: str) -> Tensor:
        return self.golden.input(f"{self.name}/{name}")


def in_cases(golden, run: Callable[[Case], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The arrays of all cases of a ``trained_*`` file; ``run`` returns those of one."""
    cases = [Case(golden, name) for name in golden.meta["cases"]]
    return {f"{each.name}/{array}": value for each in cases if not each.empty for array, value in run(each).items()}
