"""Min-max normalization of maps, as heat maps are displayed (GEM, adapting-CLIP, clip_prs)."""

from torch import Tensor


def min_max(maps: Tensor, rounding: float = 0.0) -> Tensor:
    """(…, H, W) maps, each shifted and scaled to [0, 1] by its own minimum and maximum.

    A constant map, whose minimum and maximum differ by at most ``rounding``, becomes zeros.
    """
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    span = high - low
    return ((maps - low) / span.clamp(min=1e-12)).where(span > rounding, maps.new_zeros(()))
