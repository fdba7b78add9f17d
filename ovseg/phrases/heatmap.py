"""The heat map of Adapting CLIP (arXiv 2204.03647): scores of regions painted on their pixels.

h(p) = mean over the regions r that cover p of exp(score_r / T),   then scaled to [0, 1] by its least and largest
"""

import numpy as np
import torch

from ovseg.score import min_max


def heat_map(scores: np.ndarray, regions: np.ndarray, temperature: float = 0.01) -> np.ndarray:
    """Heat maps of P phrases.

    Args:
        scores: (P, R) cosine of every phrase with every region, or (R,).
        regions: (S, H, W) region ids of S segmentations as from ``superpixels``, −1 for no region; or masks
            (R, H, W) bool.
        temperature: T; smaller values emphasize the best regions.

    Returns:
        (P, H, W), or (H, W), float32 in [0, 1].  A constant map is all zeros; a pixel that no region covers is zero.

    Raises:
        ValueError: scores that are not finite or do not match the regions, or a temperature that is not positive.
    """
    scores, regions = np.asarray(scores, np.float64), np.asarray(regions)
    if not temperature > 0:
        raise ValueError(f"the temperature must be positive, such as 0.01, got {temperature}.")
    if regions.ndim != 3 or not regions.size or regions.dtype.kind not in "iub":
        raise ValueError(
            f"regions must be ids (S, H, W) or masks (R, H, W) of type bool, got {regions.dtype} {regions.shape}."
        )
    if regions.dtype == bool:
        count = len(regions)
        regions = np.where(regions, np.arange(count)[:, None, None], -1)
    else:
        count = int(regions.max()) + 1
    if scores.ndim not in (1, 2) or scores.shape[-1] != count or not count or not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be finite and (P, R), one per phrase and region: expected R = {count}, got {scores.shape}."
        )
    flat = scores.reshape(-1, count)
    # The scaling to [0, 1] cancels any common factor; this one keeps exp from overflowing.
    values = np.exp((flat - flat.max(1, keepdims=True)) / temperature)
    covered = regions >= 0
    covers = covered.sum(0)
    total = np.zeros((len(flat), *regions.shape[1:]))
    for ids, inside in zip(regions, covered, strict=True):
        total[:, inside] += values[:, ids[inside]]
    anywhere = covers > 0
    heat = np.zeros_like(total)
    inside = total[:, anywhere] / covers[anywhere]
    rounding = 1e-9  # differences below this count as ties: the largest value before scaling is close to one
    heat[:, anywhere] = min_max(torch.from_numpy(inside)[:, None], rounding)[:, 0].numpy()
    return heat.reshape(*scores.shape[:-1], *regions.shape[1:]).astype(np.float32)
