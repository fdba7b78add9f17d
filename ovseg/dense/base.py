"""What every dense extractor is: published settings as class attributes, a way in, ``DenseFeatures`` out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ovseg.towers import TokenState, Tower, require

from .features import DenseFeatures, pad_to_patches


class DenseExtractor(nn.Module, ABC):
    """Base of the dense extractors.

    Class attributes are a method's published choice:

    name       what people type, and what results record (``clip_surgery``); its folder, page and picture too
    paper      where it comes from
    protocol   prediction settings, keyword arguments of ``ovseg.predict.Protocol``
    scorer     config of the scorer it needs, None for the cosine
    positions  how the position table is resized (``towers.positions``)
    padding    how a picture is fitted to whole patches (``features.pad_to_patches``)
    requires   what it must have of a tower, names of ``towers.CAPABILITIES``
    needs      options without which it cannot run (a checkpoint, for example)
    tuned      whether it reads a tower as it is after the method's own training, and means little on any other
    in_weights options that ``ovseg.load`` takes from the weights' own file unless told otherwise
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
        """Tokens that enter the first block, and the padding, of normalised images (B, 3, H, W).

        Raises:
            ValueError: a tower without what the method requires.
        """
        require(tower, self.requires, type(self).__name__)
        images, padding = pad_to_patches(images, tower.stride, self.padding, tower.preprocess)
        return tower.start(images, self.positions), padding

    @abstractmethod
    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """Dense features of normalised images (B, 3, H, W) of any size."""


def to_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens (B, h·w, C) as maps (B, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, grid)
