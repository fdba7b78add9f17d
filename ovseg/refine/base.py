"""The two kinds of refiners: of class maps, one at a time, and of the whole label map."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn


class MapRefiner(nn.Module, ABC):
    """Refines class maps independently of each other, so that classes can be processed in chunks."""

    @abstractmethod
    def affinity(self, image: Tensor):
        """What is needed of a normalized image (B, 3, H, W); computed once and passed to every ``apply_to``."""

    @abstractmethod
    def apply_to(self, maps: Tensor, affinity) -> Tensor:
        """Refined maps (B, C, H, W) from maps of the same shape, at the size of the image."""


@dataclass
class Picture:
    """What a label map was computed from, for label refiners.

    parts    dense features of the windows (``DenseFeatures``), in batches
    boxes    the windows (top, left, bottom, right) in the resized image
    resized  (H', W') of the resized image
    image    (3, H, W) normalized, at the original size; None if no refiner needs it
    pixels   (H, W, 3) uint8 RGB, the original image; None if no refiner needs it
    logits   function from class ids to their logits (C, H, W), scaled as for the softmax (log-probabilities if the
             scores are probabilities)
    """

    parts: list
    boxes: list
    resized: tuple[int, int]
    image: Tensor | None
    pixels: np.ndarray | None
    logits: Callable[[Sequence[int]], Tensor]


class LabelRefiner(nn.Module, ABC):
    """Refines a label map after the argmax.

    ``sees_image`` and ``sees_pixels`` say which optional fields of ``Picture`` it needs.
    """

    sees_image = False
    sees_pixels = False

    @abstractmethod
    def relabel(self, labels: Tensor, picture: Picture) -> Tensor:
        """Labels (H, W) int64 → labels (H, W) int64."""
