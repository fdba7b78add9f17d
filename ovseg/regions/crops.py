"""Embeddings of boxes from their crops, averaged over several margins.

    e_r = unit( Σ_m unit(E(crop of r, enlarged m times)) ),   E the tower's image embedding, m = 1, 1.5, …

The guided cropping of GC-CLIP (Saranrittichai et al., 2023) [recalled]: a box that surrounds a thing with some margin,
encoded alone at the tower's own size, is classified better than the whole image.  A masked crop has the mean color of
the weights outside the region.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.towers import Tower

from .clipself import fitted_crops

MARGINS = (1.0, 1.5)


class CropReader:
    """Image embeddings of the crops of boxes.

    Args:
        tower: crops are resized to its image size.
        margins: factors on both sides of a box about its center, within the image; the embeddings are averaged.
        masked: replace pixels outside the region.
        batch: crops per forward pass.

    Raises:
        ValueError: no margins, or one below 1.
    """

    def __init__(self, tower: Tower, margins: Sequence[float] = MARGINS, masked: bool = False, batch: int = 64):
        self.tower, self.margins, self.masked, self.batch = tower, tuple(margins), masked, batch
        if not self.margins or min(self.margins) < 1 or batch < 1:
            raise ValueError(f"margins enlarge a box, at least one factor from 1 on; got {self.margins}, {batch=}.")

    @torch.inference_mode()
    def __call__(self, picture: Tensor, boxes: Tensor, masks: Tensor | None = None) -> Tensor:
        """Unit embeddings (R, E).

        Args:
            picture: (3, H, W) RGB in [0, 1].
            boxes: (R, 4) x1, y1, x2, y2 in pixels, with some area inside the image.
            masks: (R, H, W) boolean masks of the regions; by default their boxes.
        """
        total = picture.new_zeros(len(boxes), self.tower.embed_dim)
        for margin in self.margins:
            parts = [
                self._embed(picture, part, None if masks is None else masks[start : start + self.batch], margin)
                for start, part in zip(range(0, len(boxes), self.batch), boxes.split(self.batch), strict=False)
                if len(part)
            ]
            total = total + torch.cat(parts) if parts else total
        return F.normalize(total, dim=1)

    def _embed(self, picture: Tensor, boxes: Tensor, masks: Tensor | None, margin: float) -> Tensor:
        size = self.tower.image_size
        if self.masked:
            mean = torch.tensor(self.tower.preprocess.mean, device=picture.device)[:, None, None]
            crops = torch.cat(
                [
                    fitted_crops(torch.where(inside, picture, mean), box[None], size, margin)
                    for box, inside in zip(boxes, _inside(boxes, picture.shape[1:], masks), strict=True)
                ]
            )
        else:
            crops = fitted_crops(picture, boxes, size, margin)
        return F.normalize(self.tower(self.tower.normalize(crops))[0].float(), dim=1)


def _inside(boxes: Tensor, size: Sequence[int], masks: Tensor | None):
    """The mask (H, W) of each region in turn."""
    if masks is not None:
        yield from masks
        return
    y, x = (torch.arange(length, device=boxes.device) + 0.5 for length in size)
    for x1, y1, x2, y2 in boxes:
        yield ((y >= y1.floor()) & (y < y2.ceil()))[:, None] & ((x >= x1.floor()) & (x < x2.ceil()))
