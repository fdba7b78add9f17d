"""Presets that add learned tokens."""

from torch import Tensor


def _rows(parameter: Tensor, like: Tensor) -> Tensor:
    """(M, D) → (B, M, D) in the dtype of a tensor (B, …)."""
    return parameter.to(like.dtype).expand(len(like), *parameter.shape)
