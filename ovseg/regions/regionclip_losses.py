"""The losses of RegionCLIP (Zhong et al., CVPR 2022): pretraining with a concept pool, fine-tuning on boxes.

q  = softmax_c(cos(g_r, c)/τ)  of the teacher's region features g over the concepts;   kept where max q > 0.1 (or all)
L₁ = mean_r KL(q ‖ softmax_c(cos(f_r, c)/τ))                          distillation, over kept regions
L₂ = −mean_i log Σ_{j: y_j = y_i} softmax_j(cos(f_i, c_{y_j})/τ)       y = argmax q;  one direction, over kept regions
L₃ = ½ (CE of images over captions + CE of captions over images)  global feature and caption, all processes

CE with a background weight is a weighted mean; with the factor (1 − p)^γ it is divided by the number of regions
instead, as in the reference.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from ovseg.score.text_classifier import cosine_logits


def pseudo_labels(
    teacher: Tensor, concepts: Tensor, temperature: float = 0.01, threshold: float = 0.1
) -> tuple[Tensor, Tensor, Tensor]:
    """The teacher's pseudo labels of region features (R, E) in terms of concepts (C, E).

    Returns:
        keep (R,) boolean, the concepts y (R',) of kept regions, and their q (R', C).
    """
    q = cosine_logits(teacher, concepts, 1 / temperature).softmax(-1)
    best, labels = q.max(-1)
    keep = best > threshold
    keep = keep if keep.any() else torch.ones_like(keep)
    return keep, labels[keep], q[keep]


def distillation(student: Tensor, concepts: Tensor, q: Tensor, temperature: float = 0.01) -> Tensor:
    """L₁ of the student's features (R', E) of kept regions; finite even if a probability underflows."""
    if not len(student):
        return student.sum()
    return F.kl_div(cosine_logits(student, concepts, 1 / temperature).log_softmax(-1), q, reduction="batchmean")


def same_concept(labels: Tensor) -> Tensor:
    """(R', R') boolean: pairs of regions with the same concept."""
    return labels[:, None] == labels[None]


def concept_contrast(student: Tensor, concepts: Tensor, labels: Tensor, temperature: float = 0.01) -> Tensor:
    """L₂ of features (R', E) of kept regions with concepts y (R',); repeated concepts count as often as they occur."""
    if not len(student):
        return student.sum()
    logits = cosine_logits(student, concepts[labels], 1 / temperature)
    positive = logits.masked_fill(~same_concept(labels), -torch.inf).logsumexp(-1)
    return (logits.logsumexp(-1) - positive).mean()


def image_text(images: Tensor, captions: Tensor, temperature: float = 0.01) -> Tensor:
    """L₃ of global features (B, E) and caption embeddings (B, E), with those of other processes as additional
    negatives.

    Every process needs the same number of pairs.
    """
    images, captions = F.normalize(images.float(), dim=-1), F.normalize(captions.float(), dim=-1)
    if dist.is_initialized() and dist.get_world_size() > 1:
        images, captions = torch.cat(all_gather(images)), torch.cat(all_gather(captions.contiguous()))
    logits = images @ captions.T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def region_cross_entropy(logits: Tensor, labels: Tensor, background: float = 1.0, gamma: float = 0.0) -> Tensor:
    """Cross entropy of regions over classes and background.

    Args:
        logits: (R, K + 1), the last column background; −inf excludes a class.
        labels: (R,) int64, K for background.
        background: weight of background regions.
        gamma: γ; 0 is the weighted mean, above it the mean of (1 − p)^γ·weight·CE over R.

    Returns:
        a scalar; zero without regions.
    """
    if not len(labels):
        return logits.new_zeros(())
    weight = torch.where(labels == logits.shape[1] - 1, background, 1.0).to(logits)
    entropy = F.cross_entropy(logits.float(), labels, reduction="none")
    if gamma:
        # 1 − p as −expm1(log p) keeps its digits, and the floor keeps the slope of its power finite at p = 1
        entropy = (-torch.expm1(-entropy)).clamp(min=1e-12) ** gamma * entropy
        return (weight * entropy).mean()
    return (weight * entropy).sum() / weight.sum().clamp(min=1e-12)
