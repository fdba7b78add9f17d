"""What a family of towers is: one registered class in one file, which alone knows the family's modules."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from ovseg.registry import TOWERS, names

from .base import Tower
from .parts import Parts, text_parts


class TowerFamily(Tower):
    """Base of the families, which register in ``TOWERS`` under their name ``family``."""

    family: ClassVar[str]

    @classmethod
    @abstractmethod
    def matches(cls, state: Mapping[str, Tensor], config: Mapping) -> bool:
        """Whether weights, named as ``formats.plain`` leaves them, are of this family.

        ``config`` is open_clip's ``vision_cfg`` of the weights, empty where none is recorded.
        """

    @classmethod
    @abstractmethod
    def opens(cls, visual: nn.Module) -> bool:
        """Whether an image module is of this family."""

    @classmethod
    @abstractmethod
    def vision_config(cls, state: Mapping[str, Tensor], config: Mapping) -> dict:
        """``vision_cfg`` of weights: what ``config`` records, the rest read off the shapes."""

    @classmethod
    @abstractmethod
    def attention_config(cls, state: Mapping[str, Tensor], heads: int | None, eps: float | None) -> dict:
        """The part of a ``vision_cfg`` that says how many heads there are and the epsilon of layer norms."""

    @classmethod
    @abstractmethod
    def from_state(
        cls, state: Mapping[str, Tensor], config: Mapping, quick_gelu: bool, embed_dim: int | None = None
    ) -> nn.Module:
        """The image module for weights and their ``vision_config``; its tensors are not those of the weights yet.

        ``embed_dim`` is E where it is recorded; None: read off the shapes.
        """

    @abstractmethod
    def recorded_config(self) -> dict:
        """The ``vision_cfg`` from which ``from_state`` builds this tower again."""

    @abstractmethod
    def visual_parts(self) -> Parts:
        """Handles on the parts of the image side."""

    @abstractmethod
    def resize_table(self, grid: tuple[int, int], mode: str):
        """Replace the position table by one for another grid (h, w); see ``towers.positions`` for the modes."""

    def parts(self, side: str) -> Parts:
        """Handles on the parts of one side, ``visual`` or ``text``.

        Raises:
            ValueError: another side, or the text side of a tower that has none.
        """
        if side not in ("visual", "text"):
            raise ValueError(f"a tower has the sides visual, text; got {side!r}.")
        if side == "visual":
            return self.visual_parts()
        if self.clip is None:
            raise ValueError(
                f"{self.card.name} has no text tower to tune; load whole CLIP weights or tune visual only."
            )
        return text_parts(self.clip, self.visual)

    def around(self, visual: nn.Module, clip: nn.Module | None = None) -> "Tower":
        """A tower of the same family, preprocessing and card around another image module of the same kind."""
        return type(self)(visual, clip, self.preprocess, self.card)


def families() -> list[type[TowerFamily]]:
    """All registered families."""
    return [TOWERS.get(name) for name in names(TOWERS)]
