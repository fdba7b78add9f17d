"""Two opinions on a region: the detector's own, and that of the frozen tower.

base and background   p^(1−α) q^α
novel                 p^(1−β) q^β           nothing is normalised afterwards, so the rows do not sum to one

F-VLM, F-ViT: α < β, the detector knows what it was trained on.  BARON's f is α = 1 − f, β = f.  p and q are
probabilities of a softmax or sigmoids, as the detector was trained; the exponents mean another thing then.
"""

from torch import Tensor


def geometric_ensemble(p: Tensor, q: Tensor, base: Tensor, alpha: float, beta: float) -> Tensor:
    """Scores (R, K) of regions.

    Args:
        p: (R, K) the detector's probabilities, in [0, 1].
        q: (R, K) those of the frozen tower, in [0, 1].
        base: (K,) boolean, classes that the detector was trained on; background is one of them.
        alpha, beta: share of q in base and in other classes, in [0, 1].

    Raises:
        ValueError: shapes that do not match, or shares beyond [0, 1].
    """
    if p.shape != q.shape or p.shape[-1:] != base.shape or not (0 <= alpha <= 1 and 0 <= beta <= 1):
        raise ValueError(
            f"geometric_ensemble takes p and q (R, K), base (K,) and shares from 0 to 1; got {tuple(p.shape)}, "
            f"{tuple(q.shape)}, {tuple(base.shape)}, {alpha} and {beta}."
        )
    share = p.new_full(base.shape, beta).masked_fill(base.to(p.device), alpha)
    return p ** (1 - share) * q**share
