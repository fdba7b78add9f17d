"""SLIC superpixels (Achanta et al., TPAMI 2012) at several scales, as Adapting CLIP (arXiv 2204.03647) takes them."""

from collections.abc import Sequence

import numpy as np

SEGMENT_COUNTS = tuple(range(100, 601, 50))


def superpixels(
    image: np.ndarray, counts: Sequence[int] = SEGMENT_COUNTS, compactness: float = 50, sigma: float = 0
) -> np.ndarray:
    """Segmentations of an image, one per count of segments.

    Args:
        image: (H, W, 3) uint8 RGB.
        counts: approximate number of segments in each segmentation; SLIC decides the exact number.
        compactness: weight of distance relative to color; larger values give more compact segments.
        sigma: width in pixels of the Gaussian that smooths the image beforehand.

    Returns:
        (S, H, W) int32 region ids for S counts.  Ids continue from one segmentation to the next, so that the R regions
        of all segmentations are 0 … R − 1.

    Raises:
        ValueError: not an image, or no counts.
        ImportError: scikit-image is missing.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"superpixels need a uint8 RGB picture (H, W, 3), got {image.dtype} {image.shape}.")
    if not counts or min(counts) < 1:
        raise ValueError(f"counts are one or more numbers of segments from 1 up, got {tuple(counts)}.")
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ImportError(
            "superpixels need scikit-image, which is not installed. Type: pip install scikit-image"
        ) from error
    maps, first = [], 0
    for count in counts:
        labels = slic(image.astype(np.float32) / 255, count, compactness, sigma=sigma, start_label=0)
        ids = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
        maps.append((ids + first).astype(np.int32))
        first = int(maps[-1].max()) + 1
    return np.stack(maps)


def as_masks(maps: np.ndarray) -> np.ndarray:
    """Region ids (S, H, W), or (H, W), from 0 up → masks (R, H, W) bool, in the order of the ids; −1 is no region.

    Raises:
        ValueError: an id below −1, or no region at all.
    """
    maps = np.asarray(maps)
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3 or maps.dtype.kind not in "iu" or not maps.size or maps.min() < -1 or maps.max() < 0:
        raise ValueError(
            f"region ids are integers (S, H, W) from 0 up, -1 for no region; got {maps.dtype} {maps.shape}."
        )
    masks = np.zeros((int(maps.max()) + 1, *maps.shape[1:]), dtype=bool)
    rows, columns = np.indices(maps.shape[1:])
    for ids in maps:
        inside = ids >= 0
        masks[ids[inside], rows[inside], columns[inside]] = True
    return masks
