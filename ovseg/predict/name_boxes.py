"""Which of the words names a given box?  Several ways of reading a region, and the mean of what they say.

p_r = mean over the read-outs of softmax_k( τ' · max over the words t of class k of cos(e_r, t) )

roi          e_r = RoIAlign of the dense map, one bin
mask         e_r = mean of the dense map under the mask of the region, its box where there is none
crop         e_r = image embedding of crops with margins (``regions.crops``)
masked_crop  the same, without what does not belong to the region
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.regions.crops import MARGINS, CropReader
from ovseg.regions.pooling import pool_boxes, pool_masks
from ovseg.regions.proposals import box_masks
from ovseg.registry import did_you_mean

from .detect import DenseDetector, EncodedPicture, Words, given_regions, shares_of_cells

READOUTS = ("roi", "mask", "crop", "masked_crop")
DENSE_READOUTS = ("roi", "mask")


class BoxNamer:
    """Class probabilities of given regions.

    Args:
        engine: tower, dense map and words.
        readouts: any of ``READOUTS``; their probabilities are averaged.
        margins: of the crops.

    Raises:
        ValueError: no read-out or an unknown one, margins below 1, or another kind of engine.
    """

    def __init__(
        self,
        engine: DenseDetector,
        readouts: Sequence[str] = ("crop", "masked_crop"),
        margins: Sequence[float] = MARGINS,
    ):
        if not isinstance(engine, DenseDetector):
            raise ValueError("boxes are named by a detector without training that sees whole pictures: no slice.")
        readouts = (readouts,) if isinstance(readouts, str) else tuple(readouts)
        unknown = [name for name in readouts if name not in READOUTS]
        if unknown or not readouts:
            hint = did_you_mean(unknown[0], READOUTS) if unknown else ""
            raise ValueError(
                f"read-outs are one or more of {', '.join(READOUTS)}; got {', '.join(unknown) or 'none'}. {hint}"
            )
        self.engine, self.readouts, self.margins = engine, readouts, tuple(float(each) for each in margins)
        self._crops = {
            name: CropReader(engine.pipeline.tower, self.margins, masked=name == "masked_crop")
            for name in readouts
            if name not in DENSE_READOUTS
        }

    @property
    def settings(self) -> dict:
        """What is saved beside results, besides the engine's own."""
        return {"readouts": list(self.readouts)} | ({"margins": list(self.margins)} if self._crops else {})

    @torch.inference_mode()
    def __call__(self, picture: EncodedPicture, words: Words, boxes: Tensor, masks: Tensor | None = None) -> Tensor:
        """Probabilities (R, K) of the classes of the vocabulary; what goes to competing background words is missing.

        Args:
            picture, words: what ``DenseDetector.encode`` and ``read`` returned.
            boxes: (R, 4) x1, y1, x2, y2 in pixels. Those without area, beyond the picture or not finite have zeros.
            masks: (R, H, W) boolean, what belongs to each box.

        Raises:
            ValueError: other shapes.
        """
        if masks is not None and len(masks) != len(boxes):
            raise ValueError(f"{len(boxes)} boxes have as many masks, if any; got {len(masks)}.")
        device = words.text.device
        sound, _, valid = given_regions(boxes, None, picture.size)
        masks = None if masks is None else torch.as_tensor(masks)[valid].bool().to(device)
        if masks is not None:  # an empty mask says nothing: the box speaks
            empty = ~masks.flatten(1).any(1)
            masks[empty] = box_masks(sound[empty].to(device), picture.size) > 0
        classes = words.classes - words.extra
        result = torch.zeros(len(boxes), classes, device=device)
        if len(valid):
            each = [self._read(name, picture, words, sound.to(device), masks) for name in self.readouts]
            result[valid.to(device)] = torch.stack(each).mean(0)[:, :classes]
        return result.cpu()

    def _read(self, name: str, picture: EncodedPicture, words: Words, boxes: Tensor, masks: Tensor | None) -> Tensor:
        grid = tuple(picture.dense.shape[2:])
        if name == "roi":
            embeddings = pool_boxes(picture.dense, [boxes], picture.size)
        elif name == "mask":
            if masks is None:
                cells = boxes.new_tensor([grid[1] / picture.size[1], grid[0] / picture.size[0]] * 2)
                weights = box_masks(boxes * cells, grid)
            else:
                weights = shares_of_cells(masks.float(), grid)
            embeddings = pool_masks(picture.dense, [weights])
        else:
            pixels = torch.from_numpy(picture.image).to(boxes.device).permute(2, 0, 1) / 255
            embeddings = self._crops[name](pixels, boxes, masks)
        return self.engine.names(words, F.normalize(embeddings, dim=1))
