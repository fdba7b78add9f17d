"""The geometric mean of two scores of a region: the detector's p and the frozen tower's q.

base and background   p^(1−α) q^α
novel                 p^(1−β) q^β           not renormalized, so the rows do not sum to one

F-VLM and F-ViT choose α < β, because the detector is more reliable on the classes it was trained on.  BARON's f is
α = 1 − f, β = f.  p and q come from a softmax or from sigmoids, depending on how the detector was trained; exponents do
not carry over from one to the other.
"""

from torch import Tensor


def geometric_ensemble(p: Tensor, q: Tensor, base: Tensor, alpha: float, beta: float) -> Tensor:
    """Scores (R, K) of regions.

    Args:
        p: (R, K) the detector's probabilities, in [0, 1].
        q: (R, K) those of the frozen tower, in [0, 1].
        base: (K,) boolean, the classes that the detector was trained on, including background.
        alpha, beta: share of q in base and in other classes, in [0, 1].

    Raises:
        ValueError: shapes that do not match, or shares outside [0, 1].
    """
    if p.shape != q.shape or p.shape[-1:] != base.shape or not (0 <= alpha <= 1 and 0 <= beta <= 1):
        raise ValueError(
            f"geometric_ensemble takes p and q (R, K), base (K,) and shares from 0 to 1; got {tuple(p.shape)}, "
            f"{tuple(q.shape)}, {tuple(base.shape)}, {alpha} and {beta}."
        )
    share = p.new_full(base.shape, beta).masked_fill(base.to(p.device), alpha)
    return p ** (1 - share) * q**share
