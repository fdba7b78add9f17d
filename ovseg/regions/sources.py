"""Sources of masks without class labels.

A mask source takes a uint8 RGB image (H, W, 3) and returns region ids (H, W) int64, −1 for no region.  Any such
function can be used instead.
"""

import numpy as np

from ovseg.registry import MASKS

from .superpixels import superpixels


@MASKS.register_module()
class Superpixels:
    """SLIC superpixels; requires no download.

    Args:
        count: approximate number.
        compactness: weight of distance relative to color.
    """

    def __init__(self, count: int = 60, compactness: float = 10.0):
        self.count, self.compactness = count, compactness

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return superpixels(image, (self.count,), self.compactness)[0].astype(np.int64)


@MASKS.register_module()
class SamMasks:
    """Segment Anything's automatic masks through transformers (``pip install transformers``). Not yet measured by us.

    Args:
        model: a name on the hub, or a folder with the model's files.

    Raises:
        ImportError: transformers is missing.
    """

    def __init__(self, model: str = "facebook/sam-vit-base"):
        try:
            from transformers import pipeline
        except ImportError as error:
            raise ImportError("SamMasks needs transformers. Type: pip install transformers") from error
        self.generate = pipeline("mask-generation", model=model)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        from PIL import Image

        masks = sorted(self.generate(Image.fromarray(image))["masks"], key=np.count_nonzero, reverse=True)
        regions = np.full(image.shape[:2], -1, np.int64)
        for number, mask in enumerate(masks):  # small masks last, on top of those that contain them
            regions[np.asarray(mask, bool)] = number
        return regions
