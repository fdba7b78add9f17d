"""Losses of FG-CLIP (Xie et al., ICML 2025) and FG-CLIP 2 on regions and their captions.

Image and text embeddings are unit vectors i_r, t_r; t_rk are the K + 1 captions of a hard region, the right one first.

v1  contrast  ½ CE(e^s i·t) + ½ CE(e^s t·i) over all regions
    hard      CE_k(e^h i_r·t_rk) = the right one
    ℓ = global_long + global_short + 0.1 contrast + 0.5 hard
v2  captions  mean_r log Σ exp(t_r·t_q) over the 10 largest, q ≠ r; a similarity above 0.95 counts as 0
    hard      0.6 nce + 3 CE_k + 0.4 margin
    nce       ½ CE of e^h i_r over all captions t_q0 and t_qk + ½ CE of e^h t_r0 over all i_q
    margin    mean relu(τ + e^h i_r·t_rk − e^h i_r·t_r0), k ≥ 1;   the next τ is the mean of e^h(i_r·t_r0 − i_r·t_rk)
    sigmoid   −(1/R) Σ_rq log σ(±(e^s i_r·t_q + b)), + for r = q
    ℓ = sigmoid_long + sigmoid_short + 0.2 contrast + 0.1 captions + 0.5 hard

Without regions, all functions return zero.
"""

from functools import reduce
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

V1 = {"long": 1.0, "short": 1.0, "region": 0.1, "hard": 0.5}
V2 = {"long": 1.0, "short": 1.0, "region": 0.2, "captions": 0.1, "hard": 0.5}
HARD = {"nce": 0.6, "pair": 3.0, "margin": 0.4}
TAU = (0.0, 10.0)  # the margin's range


class HardLoss(NamedTuple):
    """``total`` as weighted in ``HARD``, its parts, and the margin of the next step, all scalars."""

    total: Tensor
    nce: Tensor
    pair: Tensor
    margin: Tensor
    threshold: Tensor


def region_contrast(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy between the regions (R, E) and the captions (R, E) of this process."""
    if not len(image):
        return _nothing(image, text)
    return (_pick(log_scale.exp() * image @ text.T) + _pick(log_scale.exp() * text @ image.T)) / 2


def hard_negatives(image: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Cross entropy of the right caption: regions (R, E), captions (R, K + 1, E), the right one first."""
    return _pair(log_scale.exp() * _similarity(image, texts)) if len(image) else _nothing(image, texts)


def caption_contrast(text: Tensor, most: int = 10, same: float = 0.95) -> Tensor:
    """Pushes captions (R, E) of different regions apart; near-duplicates are ignored."""
    if not len(text):
        return _nothing(text)
    similarity = text @ text.T
    similar = (similarity > same) | torch.eye(len(text), dtype=torch.bool, device=text.device)
    return similarity.masked_fill(similar, 0).topk(min(most, len(text)), 1).values.logsumexp(1).mean()


def hard_total(image: Tensor, texts: Tensor, log_scale: Tensor, threshold: Tensor | float) -> HardLoss:
    """FG-CLIP 2's loss with hard negatives.

    Args:
        image: (R, E).
        texts: (R, K + 1, E), the right caption first.
        log_scale: h.
        threshold: τ of the previous step.
    """
    threshold = torch.as_tensor(threshold, dtype=image.dtype, device=image.device)
    if not len(image):
        nothing = _nothing(image, texts)
        return HardLoss(nothing, nothing, nothing, nothing, threshold)
    scale, right = log_scale.exp(), texts[:, 0]
    captions = torch.cat([right, texts[:, 1:].flatten(0, 1)])
    nce = (_pick(scale * image @ captions.T) + _pick(scale * right @ image.T)) / 2
    scores = scale * _similarity(image, texts)
    pair = _pair(scores)
    gap = scores[:, :1] - scores[:, 1:]
    margin = F.relu(threshold - gap).mean() if gap.numel() else _nothing(image)
    total = HARD["nce"] * nce + HARD["pair"] * pair + HARD["margin"] * margin
    return HardLoss(total, nce, pair, margin, next_threshold(gap) if gap.numel() else threshold)


@torch.no_grad()
def next_threshold(gap: Tensor) -> Tensor:
    """The mean gap over all processes, between 0 and 10."""
    mean = gap.mean()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(mean)
        mean = mean / dist.get_world_size()
    return mean.clamp(*TAU)


def sigmoid_loss(image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss between (R, E) and (R, E) of this process."""
    if not len(image):
        return _nothing(image, text)
    logits = log_scale.exp() * image @ text.T + bias
    signs = 2 * torch.eye(len(image), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(image)


def weighted(weights: dict[str, float], **terms: Tensor) -> Tensor:
    """Sum of terms by the weights of ``V1`` or ``V2``; missing terms are skipped.

    Raises:
        ValueError: a term without a weight.
    """
    unknown = [name for name in terms if name not in weights]
    if unknown or not terms:
        raise ValueError(f"FG-CLIP's terms are {', '.join(weights)}; got {', '.join(unknown) or 'none'}.")
    return reduce(torch.add, (weights[name] * term for name, term in terms.items()))


def _similarity(image: Tensor, texts: Tensor) -> Tensor:
    return torch.einsum("re,rke->rk", image, texts)


def _pair(scores: Tensor) -> Tensor:
    """Cross-entropy with the first column."""
    return F.cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.long))


def _pick(logits: Tensor) -> Tensor:
    """Cross-entropy of row r with column r."""
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def _nothing(*tensors: Tensor) -> Tensor:
    return reduce(torch.add, (tensor.sum() for tensor in tensors))
