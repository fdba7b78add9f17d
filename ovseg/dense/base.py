"""The base class of dense extractors: published settings as class attributes, images in, ``DenseFeatures`` out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ovseg.towers import TokenState, Tower, require

from .features import DenseFeatures, pad_to_patches


class DenseExtractor(nn.Module, ABC):
    """Base class of dense extractors.

    Class attributes hold a method's published settings:

    name       its name on the command line and in results (``clip_surgery``), also of its folder, page and image
    paper      its publication
    protocol   prediction settings, keyword arguments of ``ovseg.predict.Protocol``
    scorer     config of the scorer it needs, None for the cosine
    positions  how the position table is resized (``towers.positions``)
    padding    how an image is fitted to whole patches (``features.pad_to_patches``)
    requires   capabilities that the tower must have, from ``towers.CAPABILITIES``
    needs      options without which it cannot run (a checkpoint, for example)
    tuned      whether it expects a tower from the method's own training and is of little use on any other
    in_weights options that ``ovseg.load`` takes from the weights file by default
    """

    name: str = ""
    paper: str = ""
    protocol: dict = {}
    scorer: dict | None = None
    positions: str = "scale"
    padding: str = "floor"
    requires: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    tuned: bool = False
    in_weights: tuple[str, ...] = ()

    def __init__(self, positions: str | None = None, padding: str | None = None):
        super().__init__()
        self.positions = type(self).positions if positions is None else positions
        self.padding = type(self).padding if padding is None else padding

    def start(self, tower: Tower, images: Tensor) -> tuple[TokenState, tuple[int, int, int, int]]:
        """Tokens that enter the first block, and the padding, of normalized images (B, 3, H, W).

        Raises:
            ValueError: a tower without a capability that the method requires.
        """
        require(tower, self.requires, type(self).__name__)
        images, padding = pad_to_patches(images, tower.stride, self.padding, tower.preprocess)
        return tower.start(images, self.positions), padding

    @abstractmethod
    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """Dense features of normalized images (B, 3, H, W) of any size."""


def patches(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The patches (…, h·w, C) of tokens (…, N, C), without the class or mean token that may stand before them."""
    return tokens[..., tokens.shape[-2] - grid[0] * grid[1] :, :]


def to_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens (B, h·w, C) as maps (B, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, grid)
