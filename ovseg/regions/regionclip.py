"""RegionCLIP: Region-based Language-Image Pretraining (Zhong et al., CVPR 2022): region features and scores.

x  = conv stem → layer1 → layer2 → layer3 of a CLIP ResNet, (B, C, H/16, W/16), once per image
r  = RoIAlign(x, box), 2g×2g bins for a position table of g×g;   layer4 halves it to g×g;   f = attention pool, as it is
s_k = cos(f, t_k)/τ,  τ = 0.01;   background is the zero vector, hence s_bg = 0
p  = softmax over classes and background;   score √(p·o) with an objectness o, or p alone

Only the mean token of the pool is needed, so keys and values need not be projected separately: with q its query,
q·(W_k x + b_k) = (W_kᵀ q)·x + const, and Σ a (W_v x + b_v) = W_v (Σ a x) + b_v.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.score.text_classifier import cosine_logits
from ovseg.towers import Tower, require

from .pooling import pool_boxes

STRIDE = 16  # pixels per cell of the map that regions are cut from
MEMORY = 2**28  # bytes of region maps that are held at once
REQUIRES = ("attention_pool", "stages", "square_grid")  # of a tower
OBJECTNESS = ("probability", "logit")


def res_stages(tower: Tower, images: Tensor) -> list[Tensor]:
    """The first three stages of normalized images (B, 3, H, W): strides 4, 8, 16; regions are pooled from the last.

    Raises:
        ValueError: a tower without stages or attention pool.
    """
    require(tower, REQUIRES, "RegionCLIP")
    return tower.stages(images, 3)


def table_side(tower: Tower) -> int:
    """g: positions per side of the attention pool's table."""
    return tower.table_grid[0]


def first_token(tower: Tower, maps: Tensor) -> Tensor:
    """The attention pool's output for the mean token: (R, D, g, g) → (R, E)."""
    pool, heads = tower.visual.attnpool, tower.visual.attnpool.num_heads
    x = maps.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(1, keepdim=True), x], 1) + pool.positional_embedding.to(x.dtype)
    query = pool.q_proj(x[:, 0]).unflatten(-1, (heads, -1))  # (R, heads, d)
    scale = query.shape[-1] ** -0.5
    key = torch.einsum("rhd,hdc->rhc", query * scale, pool.k_proj.weight.unflatten(0, (heads, -1)))
    mixed = (key @ x.transpose(1, 2)).softmax(-1) @ x  # (R, heads, D)
    value = torch.einsum("rhc,hdc->rhd", mixed, pool.v_proj.weight.unflatten(0, (heads, -1)))
    return pool.c_proj(value.flatten(1) + pool.v_proj.bias)


def region_maps(tower: Tower, res4: Tensor, boxes: Sequence[Tensor], sampling_ratio: int = 0) -> Tensor:
    """RoIAlign of each region: (B, C, h, w) and B tensors (R_b, 4) in input pixels → (ΣR, C, 2g, 2g)."""
    covered = (STRIDE * res4.shape[-2], STRIDE * res4.shape[-1])
    return pool_boxes(res4, boxes, covered, 2 * table_side(tower), sampling_ratio)


def region_features(
    tower: Tower,
    res4: Tensor,
    boxes: Sequence[Tensor],
    sampling_ratio: int = 0,
    with_maps: bool = False,
    memory: int = MEMORY,
):
    """Features f of regions, not normalized.

    Args:
        tower: a ResNet; its ``layer4`` and attention pool are run on every region.
        res4: (B, C, h, w), the last of ``res_stages``.
        boxes: B tensors (R_b, 4): x1, y1, x2, y2 in pixels of the images the tower saw.
        sampling_ratio: of RoIAlign; 0 is adaptive, as published.
        with_maps: also return the output of ``layer4``, (ΣR, D, g, g), for mask heads.
        memory: bytes of region maps held at once; more with gradients.

    Returns:
        (ΣR, E), concatenated over images; with ``with_maps`` a pair of that and the maps.
    """
    each = 4 * res4.shape[1] * (2 * table_side(tower)) ** 2 * 4  # about four such maps live inside layer4
    size = max(1, memory // each)
    features, maps = [], []
    for index, regions in enumerate(boxes):
        for part in regions.split(size):
            outputs = tower.visual.layer4(region_maps(tower, res4[index : index + 1], [part], sampling_ratio))
            features.append(first_token(tower, outputs))
            if with_maps:
                maps.append(outputs)
    if not features:
        features = [res4.new_zeros(0, tower.embed_dim)]
    if not with_maps:
        return torch.cat(features)
    return torch.cat(features), torch.cat(maps) if maps else res4.new_zeros(0, tower.width, *(table_side(tower),) * 2)


def region_logits(features: Tensor, text: Tensor, temperature: float = 0.01) -> Tensor:
    """Cosines over τ of features (R, E) and text (K, E) in float32, and 0 for background: (R, K + 1)."""
    return F.pad(cosine_logits(features, text, 1 / temperature), (0, 1))


def with_objectness(probabilities: Tensor, logits: Tensor, rule: str = "probability") -> Tensor:
    """√(p·o) for probabilities (R, K) and objectness logits (R,).

    ``probability``: o = σ(logit), always defined.  ``logit``: the reference multiplies by the logit itself, so that
    scores exceed 1 and rows with a negative logit are NaN, which its filter of finite values then drops.

    Raises:
        ValueError: another rule.
    """
    if rule not in OBJECTNESS:
        raise ValueError(f"unknown objectness rule {rule!r}: expected {' or '.join(OBJECTNESS)}.")
    objectness = logits.sigmoid() if rule == "probability" else logits
    return (probabilities * objectness[:, None]).sqrt()
