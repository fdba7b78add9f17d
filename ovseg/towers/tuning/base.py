"""What every tuning preset is: a choice among the parts that a tower's family names (``towers.parts``)."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from ovseg.towers.base import Tower
from ovseg.towers.parts import Parts

SIDES = ("visual", "text")


class Tuning(ABC):
    """Base of the presets.

    Args:
        towers: sides to tune: ``visual``, ``text``.

    Raises:
        ValueError: no side, an unknown one, or one that holds nothing of the kind the preset tunes.

    Class attribute ``part``: which of ``Parts`` it tunes, whose absence its family explains.
    """

    part: str = ""

    def __init__(self, towers: Sequence[str] = ("visual",)):
        self.towers = (towers,) if isinstance(towers, str) else tuple(towers)
        if not self.towers or set(self.towers) - set(SIDES):
            raise ValueError(f"{type(self).__name__}: towers are some of {', '.join(SIDES)}; got {self.towers}.")

    def apply(self, tower: Tower) -> int:
        """Make the preset's parameters trainable; how many numbers that are."""
        total = 0
        for name in self.towers:
            parts = tower.parts(name)
            parameters = {id(p): p for p in self.tune(tower, parts)}
            if not parameters:
                reason = parts.blank.get(self.part, "it has nothing of the kind")
                raise ValueError(
                    f"{type(self).__name__} finds nothing to tune in the {name} side of {tower.card.name} "
                    f"({tower.family}): {reason}."
                )
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            total += sum(parameter.numel() for parameter in parameters.values())
        return total

    @abstractmethod
    def tune(self, tower: Tower, parts: Parts) -> Iterator[nn.Parameter]:
        """Parameters of one side that shall train."""

    def penalty(self) -> Tensor | None:
        """A term of the loss that belongs to the preset, or None."""
        return None
