"""What every tuning preset is, and how the sides of a tower are walked."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from ovseg.towers.base import Tower

SIDES = ("visual", "text")


def side(tower: Tower, name: str) -> dict[str, nn.Module]:
    """Modules of one side of a tower by name, each once, the side itself under an empty name.

    Raises:
        ValueError: a tower without that side.
    """
    if name not in SIDES:
        raise ValueError(f"a tower has the sides {', '.join(SIDES)}; got {name!r}.")
    if name == "visual":
        return dict(tower.visual.named_modules())
    if tower.clip is None:
        raise ValueError(f"{tower.card.name} has no text tower to tune; load whole CLIP weights or tune visual only.")
    inside = set(tower.visual.modules())
    return {key: module for key, module in tower.clip.named_modules() if module not in inside}


class Tuning(ABC):
    """Base of the presets.

    Args:
        towers: sides to tune: ``visual``, ``text``.

    Raises:
        ValueError: no side, an unknown one, or one that holds nothing of the kind the preset tunes.
    """

    def __init__(self, towers: Sequence[str] = ("visual",)):
        self.towers = (towers,) if isinstance(towers, str) else tuple(towers)
        if not self.towers or set(self.towers) - set(SIDES):
            raise ValueError(f"{type(self).__name__}: towers are some of {', '.join(SIDES)}; got {self.towers}.")

    def apply(self, tower: Tower) -> int:
        """Make the preset's parameters trainable; how many numbers that are."""
        total = 0
        for name in self.towers:
            parameters = {id(p): p for p in self.tune(tower, name)}
            if not parameters:
                raise ValueError(
                    f"{type(self).__name__} finds nothing to tune in the {name} side of {tower.card.name}."
                )
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            total += sum(parameter.numel() for parameter in parameters.values())
        return total

    @abstractmethod
    def tune(self, tower: Tower, name: str) -> Iterator[nn.Parameter]:
        """Parameters of one side that shall train."""

    def penalty(self) -> Tensor | None:
        """A term of the loss that belongs to the preset, or None."""
        return None


def attentions(tower: Tower, name: str) -> list[nn.MultiheadAttention]:
    return [module for module in side(tower, name).values() if isinstance(module, nn.MultiheadAttention)]
