"""Clusters of patches vote for one label each (CLIPtrase: Shao et al., ECCV 2024).

The rows of a correlation D (h·w, h·w) are clustered by DBSCAN.  Each cluster's mean row, viewed as an h×w map, is
upsampled 4×, smoothed by a 7×7 median filter and upsampled to the image; the argmax over clusters assigns every pixel
to one of them, including pixels of noise patches.  All pixels of a cluster take its most frequent label (the lowest id
in a tie).
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import median_filter
from torch import Tensor

from ovseg.registry import REFINERS

from .base import LabelRefiner, Picture


def dbscan(correlation: Tensor, eps: float, min_samples: int) -> np.ndarray:
    """Cluster of each row of D (N, N): (N,) int64, −1 for noise."""
    from sklearn.cluster import DBSCAN

    return DBSCAN(eps=eps, min_samples=min_samples).fit_predict(correlation.cpu().double().numpy())


def cluster_map(correlation: Tensor, clusters: np.ndarray, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Cluster of each pixel, (H, W) int64; requires at least one cluster that is not noise."""
    members = torch.from_numpy(clusters)
    means = torch.stack([correlation[members == c].mean(0) for c in range(clusters.max() + 1)]).float()
    maps = F.interpolate(means.view(1, -1, *grid), scale_factor=4, mode="bilinear", align_corners=False)[0]
    smooth = median_filter(maps.cpu().numpy(), size=(1, 7, 7))
    large = F.interpolate(torch.from_numpy(smooth)[None], size, mode="bilinear", align_corners=False)
    return large[0].argmax(0).to(correlation.device)


def vote(labels: Tensor, regions: Tensor) -> Tensor:
    """Labels (H, W) in which every region of ``regions`` (H, W) has its most frequent label, the lowest id in a tie."""
    classes, regions = int(labels.max()) + 1, regions.unique(return_inverse=True)[1]
    counts = torch.bincount((regions * classes + labels).flatten(), minlength=(int(regions.max()) + 1) * classes)
    return counts.view(-1, classes).argmax(1)[regions]


@REFINERS.register_module()
class ClusterVote(LabelRefiner):
    """Each cluster of patches takes one label.

    Requires an extractor that returns a correlation, such as CLIPtrase.  If an image is processed in several windows,
    each window is clustered separately and a pixel belongs to the window with the nearest center.

    Args:
        eps: radius of DBSCAN; 0.7 in the paper at 224 px, 1.1 at 336 px.
        min_samples: smallest neighborhood of DBSCAN; 3 and 7.

    Raises:
        ValueError: ``eps`` not positive or ``min_samples`` below 1.
    """

    name = "cluster_vote"

    def __init__(self, eps: float = 0.7, min_samples: int = 3):
        super().__init__()
        if eps <= 0 or min_samples < 1:
            raise ValueError(f"ClusterVote: eps > 0 and min_samples >= 1, got {eps} and {min_samples}.")
        self.eps, self.min_samples = eps, min_samples

    def window_regions(self, correlation: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor | None:
        """Clusters (H, W) of one window of ``size`` pixels; None if all patches are noise."""
        clusters = dbscan(correlation, self.eps, self.min_samples)
        return cluster_map(correlation, clusters, grid, size) if clusters.max() >= 0 else None

    def relabel(self, labels: Tensor, picture: Picture) -> Tensor:
        """Labels (H, W) after the vote.

        Raises:
            ValueError: the extractor returns no correlation.
        """
        correlations, grids, paddings = [], [], []
        for part in picture.parts:
            if "correlation" not in part.extras:
                raise ValueError(
                    "ClusterVote needs an extractor that returns the correlation of patches: use the method cliptrase."
                )
            correlations += list(part.extras["correlation"])
            grids += [tuple(part.features.shape[2:])] * len(part.features)
            paddings += [part.padding] * len(part.features)
        regions, nearest = torch.full(picture.resized, -1), nearest_window(picture.boxes, picture.resized)
        used = 0
        for i, (box, correlation) in enumerate(zip(picture.boxes, correlations, strict=True)):
            top, left, bottom, right = box
            before_x, before_y, after_x, after_y = paddings[i]
            padded = bottom - top + before_y + after_y, right - left + before_x + after_x
            clusters = self.window_regions(correlation, grids[i], padded)
            if clusters is None:
                continue
            clusters = clusters[before_y : padded[0] - after_y, before_x : padded[1] - after_x].cpu()
            mine = nearest[top:bottom, left:right] == i
            regions[top:bottom, left:right][mine] = clusters[mine] + used
            used += int(clusters.max()) + 1
        regions = F.interpolate(regions[None, None].double(), labels.shape, mode="nearest-exact")[0, 0].long()
        voted = vote(labels, regions.to(labels.device))
        return torch.where(regions.to(labels.device) < 0, labels, voted)


def nearest_window(boxes, size: tuple[int, int]) -> Tensor:
    """(H, W) index of the window with the nearest center among those that cover each pixel."""
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    best, nearest = torch.full(size, torch.inf), torch.zeros(size, dtype=torch.long)
    for i, (top, left, bottom, right) in enumerate(boxes):
        distance = (y - (top + bottom) / 2).square() + (x - (left + right) / 2).square()
        covered = (y > top) & (y < bottom) & (x > left) & (x < right)
        nearer = covered & (distance < best)
        best, nearest = torch.where(nearer, distance, best), torch.where(nearer, i, nearest)
    return nearest
