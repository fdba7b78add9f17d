"""Balanced assignment by Sinkhorn's iteration, as SwAV (NeurIPS 2020) and PixelCLIP (NeurIPS 2024) use it.

Q (R, K), rows are regions, columns are clusters; in turn, n times:

    Q_rk ← Q_rk / (K Σ_r Q_rk)      every cluster gets an equal share of all regions
    Q_rk ← Q_rk / (R Σ_k Q_rk)      every region gets one share

Sums over regions, and R, are taken over all processes, so that the assignment does not depend on their number.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def all_sum(values: Tensor) -> Tensor:
    """The sum over all processes; the values themselves with a single process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


@torch.no_grad()
def sinkhorn(affinities: Tensor, iterations: int = 3) -> Tensor:
    """Assignment Q (R, K) whose rows sum to 1, of positive affinities (R, K).

    Every process must call it equally often; R may be 0 on some or all of them.  A cluster for which no
    region has any affinity gets none (its share would be 0/0).
    """
    regions, clusters = affinities.shape
    q = affinities / positive(all_sum(affinities.sum()))
    total = all_sum(q.new_tensor(float(regions)))
    for _ in range(iterations):
        q = q / positive(all_sum(q.sum(0))) / clusters
        q = q / positive(q.sum(1, keepdim=True)) / positive(total)
    return q * total


def positive(values: Tensor) -> Tensor:
    """Divisors with zeros replaced."""
    return values.where(values > 0, 1.0)
