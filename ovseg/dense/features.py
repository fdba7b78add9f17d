"""What dense extractors return, and how images are padded to whole patches."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.towers import Preprocess


@dataclass
class DenseFeatures:
    """Patch features in the joint image-text space.

    features   (B, E, h, w), not normalized
    embedding  (B, E) of the whole image, not normalized; may be passed as a function that is called on first access
    padding    pixels (left, top, right, bottom) added around the image; the h×w grid covers the padded image
    extras     tensors for a method's own later stages (MaskCLIP's keys, for example), by name
    reread     function from Sem (n, h·w, h·w) and a slice of n images to features (n, E, h, w) of the last block
               recomputed with that feedback (ResCLIP)
    """

    features: Tensor
    embedding: Tensor
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    extras: dict[str, Tensor] = field(default_factory=dict)
    reread: Callable[[Tensor, slice], Tensor] | None = None

    if TYPE_CHECKING:  # the dataclass's own, but for ``embedding``: set as a tensor or a function, read as a tensor

        def __init__(
            self,
            features: Tensor,
            embedding: Tensor | Callable[[], Tensor],
            padding: tuple[int, int, int, int] = (0, 0, 0, 0),
            extras: dict[str, Tensor] = ...,
            reread: Callable[[Tensor, slice], Tensor] | None = None,
        ): ...

    def __post_init__(self):
        """Deferred functions run under the autocast settings of the time of construction."""
        if callable(self.embedding):
            self._embed = self._as_now(self.__dict__.pop("embedding"))
        if self.reread is not None:
            self.reread = self._as_now(self.reread)

    def _as_now(self, call: Callable) -> Callable:
        kind = self.features.device.type
        dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

        def later(*inputs):
            with torch.autocast(kind, dtype, enabled):
                return call(*inputs)

        return later

    def __getattr__(self, name: str):
        embed = self.__dict__.get("_embed")
        if name != "embedding" or (embed is None and "embedding" not in self.__dict__):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if embed is not None:  # else another thread was first
            with torch.inference_mode(self.features.is_inference()):
                self.embedding = embed()
            self.__dict__.pop("_embed", None)
        return self.__dict__["embedding"]

    def rows(self, rows: slice) -> "DenseFeatures":
        """The features of a slice of the images."""
        if rows == slice(0, len(self.features)):
            return self
        extras = {name: value[rows] for name, value in self.extras.items()}
        reread = self.reread
        again = None if reread is None else lambda semantic, part: reread(semantic, _within(rows, part))
        return DenseFeatures(self.features[rows], lambda: self.embedding[rows], self.padding, extras, again)


def _within(outer: slice, inner: slice) -> slice:
    """The slice of all images that ``inner`` selects within ``outer``."""
    start, stop, _ = inner.indices(outer.stop - outer.start)
    return slice(outer.start + start, outer.start + stop)


def pad_to_patches(
    images: Tensor, patch: int, mode: str, preprocess: Preprocess | None = None
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Pad normalized images (B, 3, H, W) to whole patches, with zeros (the mean color) except for ``corner_black``.

    ``floor`` adds nothing (the tower drops the incomplete border patches and the map is stretched over the image),
    ``symmetric`` pads all sides, with the odd pixel at the right and bottom (ClearCLIP), ``corner`` pads the right and
    bottom (MaskCLIP), ``corner_black`` does the same with black pixels (CLIP-DINOiser).  An image smaller than one
    patch is padded at the right and bottom in every mode.

    Returns:
        the images and the padding (left, top, right, bottom).

    Raises:
        ValueError: unknown mode.
    """
    if mode not in ("floor", "symmetric", "corner", "corner_black"):
        raise ValueError(f"unknown padding {mode!r}: choose floor, symmetric, corner or corner_black.")
    height, width = images.shape[-2:]
    down, right = (-size % patch if mode != "floor" or size < patch else 0 for size in (height, width))
    left, top = (right // 2, down // 2) if mode == "symmetric" else (0, 0)
    padding = (left, top, right - left, down - top)
    if any(padding):
        fill = torch.zeros(3, 1, 1)
        if mode == "corner_black" and preprocess is not None:
            fill = -torch.tensor(preprocess.mean).view(3, 1, 1) / torch.tensor(preprocess.std).view(3, 1, 1)
        fill = fill.to(images)
        images = F.pad(images - fill, (padding[0], padding[2], padding[1], padding[3])) + fill
    return images, padding
