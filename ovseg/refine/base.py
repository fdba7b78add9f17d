"""The two kinds of refiners: of maps, one by one, and of the label map as a whole."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn


class MapRefiner(nn.Module, ABC):
    """Class maps → better class maps, each on its own, so that classes may come in any portions."""

    @abstractmethod
    def affinity(self, image: Tensor):
        """What a normalised image (B, 3, H, W) has to say; computed once, given to every ``apply_to``."""

    @abstractmethod
    def apply_to(self, maps: Tensor, affinity) -> Tensor:
        """Refine maps (B, C, H, W) of the image's size."""


@dataclass
class Picture:
    """What a label map was made of, for refiners that look at it as a whole.

    parts    dense features of the windows (``DenseFeatures``), in batches
    boxes    the windows (top, left, bottom, right) in the resized picture
    resized  (H', W') of the resized picture
    image    (3, H, W) normalised, of the picture's own size; None where no refiner wants it
    pixels   the picture itself, (H, W, 3) uint8 RGB; None where no refiner wants it
    logits   classes → their logits (C, H, W), scaled as for the soft-max (log-probabilities where scores are those)
    """

    parts: list
    boxes: list
    resized: tuple[int, int]
    image: Tensor | None
    pixels: np.ndarray | None
    logits: Callable[[Sequence[int]], Tensor]


class LabelRefiner(nn.Module, ABC):
    """Label map → better label map, after the arg-max.

    ``sees_image`` and ``sees_pixels`` say what it wants of a ``Picture``.
    """

    sees_image = False
    sees_pixels = False

    @abstractmethod
    def relabel(self, labels: Tensor, picture: Picture) -> Tensor:
        """Labels (H, W) int64 → labels (H, W) int64."""
