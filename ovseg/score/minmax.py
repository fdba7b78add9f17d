"""Maps between 0 and 1, as heat maps are shown (GEM, adapting-CLIP, clip_prs)."""

from torch import Tensor


def min_max(maps: Tensor) -> Tensor:
    """(…, H, W) maps, each shifted and scaled to [0, 1] by its own extremes; an even map becomes zeros."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    span = high - low
    return ((maps - low) / span.clamp(min=1e-12)).where(span > 0, maps.new_zeros(()))
