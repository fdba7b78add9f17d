"""From masks without class labels to targets for pseudo classes (PixelCLIP, NeurIPS 2024, section 3).

r   region: a mask m_r of an image, resized by nearest neighbor; those of at most one pixel are dropped
z_r = Σ_p m_r(p) f(p) / Σ_p m_r(p)        f: the teacher's features, enlarged bilinearly to the size of the masks
ℓ_rk = ε·cos(z_r, c_k)                     c_k: embedding of pseudo class k
k_r = argmax_k sinkhorn(softmax_k ℓ)_rk    a hard choice, without gradient
M_k = min(1, Σ_{r: k_r = k} m_r)           per image
L = BCE(logits, M), mean over the pseudo classes and over all pixels inside any mask
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Regions(NamedTuple):
    """Regions of a batch, image after image.

    means   (R, E)
    masks   (R, H, W) float, 0 or 1
    image_index   (R,) the image of each
    images  B
    """

    means: Tensor
    masks: Tensor
    image_index: Tensor
    images: int


def masks_of_ids(layers: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (R, H', W') bool of layers (S, H, W) of region ids, 0 for none; ids of different layers are different."""
    resized = F.interpolate(layers[None].float(), size, mode="nearest")[0].long()
    masks = [layer == layer[layer > 0].unique()[:, None, None] for layer in resized]
    return torch.cat(masks)


def proxy_clusters(features: Tensor, count: int) -> Tensor:
    """Region ids (h, w) from 0 by k-means of unit features (C, h, w), deterministic."""
    from sklearn.cluster import KMeans

    points = F.normalize(features.float(), dim=0).flatten(1).T.cpu().numpy()
    labels = KMeans(min(count, len(points)), n_init=1, random_state=0).fit_predict(points)
    return torch.from_numpy(labels).long().view(features.shape[1:])


@torch.no_grad()
def region_means(features: Tensor, masks: Sequence[Tensor], size: tuple[int, int]) -> Regions:
    """Mean features of all regions.

    Args:
        features: (B, E, h, w).
        masks: per image (R_i, H, W), R_i may be 0.
        size: (H', W') at which means are computed.
    """
    features = F.interpolate(features.float(), size, mode="bilinear", align_corners=False)
    means, resized, image_index = [features.new_zeros(0, features.shape[1])], [features.new_zeros(0, *size)], []
    for index, (feature, own) in enumerate(zip(features, masks, strict=True)):
        if len(own) == 0:
            continue
        own = F.interpolate(own[None].to(features), size, mode="nearest")[0]
        area = own.sum((1, 2))
        own, area = own[area > 1], area[area > 1]
        means.append(torch.einsum("ehw,rhw->re", feature, own) / area[:, None])
        resized.append(own)
        image_index += [index] * len(own)
    return Regions(torch.cat(means), torch.cat(resized), torch.tensor(image_index, dtype=torch.long), len(features))


def assign(means: Tensor, clusters: Tensor, scale: float) -> Tensor:
    """ℓ (R, K) of region means (R, E) and clusters (K, E)."""
    return scale * F.normalize(means, dim=-1) @ F.normalize(clusters, dim=-1).T


def merged(regions: Regions, chosen: Tensor, clusters: int) -> Tensor:
    """M (B, K, H, W) from the cluster of each region (R,)."""
    target = regions.masks.new_zeros(regions.images, clusters, *regions.masks.shape[1:])
    target.index_put_((regions.image_index.to(chosen.device), chosen), regions.masks, accumulate=True)
    return target.clamp(max=1)


def covered_loss(logits: Tensor, target: Tensor) -> Tensor:
    """BCE of logits (B, K, h, w), enlarged bilinearly to M (B, K, H, W), over the pixels inside any mask.

    Without any such pixel it is 0, with a gradient of zeros, so that every process takes part in the backward pass.
    """
    logits = F.interpolate(logits, target.shape[2:], mode="bilinear", align_corners=False)
    inside = target.amax(1, keepdim=True) > 0
    every = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (every * inside).sum() / (inside.sum() * target.shape[1]).clamp(min=1)
