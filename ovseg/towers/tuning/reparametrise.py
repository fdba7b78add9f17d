"""Presets that replace a weight by a formula with fewer numbers to train."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ovseg.registry import TUNING

from .base import Tuning, attentions, side


class Stacked(nn.Module):
    """in_proj_weight (3D, D) from its parts W_q, W_k, W_v, so that they can train apart."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([q, k, v])

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in weight.chunk(3))


@TUNING.register_module()
class QV(Tuning):
    """W_q and W_v of all blocks; biases stay."""

    def tune(self, tower, name):
        for attention in attentions(tower, name):
            parametrize.register_parametrization(attention, "in_proj_weight", Stacked())
            parts = attention.parametrizations["in_proj_weight"]
            parts.original1.requires_grad_(False)
            yield from (parts.original0, parts.original2)


class LowRank(nn.Module):
    """W + (α/r)·B A on chosen thirds of a weight (n·d_out, d_in)."""

    def __init__(self, weight: Tensor, parts: int, chosen: Sequence[int], rank: int, alpha: float):
        super().__init__()
        rows, columns = weight.shape[0] // parts, weight.shape[1]
        self.parts, self.chosen, self.scale = parts, tuple(chosen), alpha / rank
        self.down = nn.Parameter(torch.randn(len(chosen), rank, columns, dtype=weight.dtype) * columns**-0.5)
        self.up = nn.Parameter(torch.zeros(len(chosen), rows, rank, dtype=weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        change = self.scale * self.up @ self.down
        thirds = list(weight.chunk(self.parts))
        for index, part in zip(self.chosen, change, strict=True):
            thirds[index] = thirds[index] + part
        return torch.cat(thirds)


@TUNING.register_module()
class LoRA(Tuning):
    """Low-rank changes of attention.

    Args:
        towers: sides.
        rank: r.
        alpha: α.
        targets: some of ``q``, ``k``, ``v``, ``out``.
    """

    def __init__(self, towers=("visual",), rank: int = 8, alpha: float = 8.0, targets: Sequence[str] = ("q", "v")):
        super().__init__(towers)
        if rank < 1 or not targets or set(targets) - {"q", "k", "v", "out"}:
            raise ValueError(f"LoRA: rank is at least 1, targets some of q, k, v, out; got {rank}, {tuple(targets)}.")
        self.rank, self.alpha, self.targets = rank, alpha, tuple(targets)

    def tune(self, tower, name):
        chosen = [index for index, part in enumerate("qkv") if part in self.targets]
        for attention in attentions(tower, name):
            if chosen:
                yield from self._add(attention, "in_proj_weight", 3, chosen)
            if "out" in self.targets:
                yield from self._add(attention.out_proj, "weight", 1, [0])

    def _add(self, module: nn.Module, key: str, parts: int, chosen: list[int]) -> Iterator[nn.Parameter]:
        weight = getattr(module, key)
        change = LowRank(weight, parts, chosen, self.rank, self.alpha).to(weight.device)
        parametrize.register_parametrization(module, key, change)
        yield from (change.up, change.down)


class Spectrum(nn.Module):
    """A weight of n stacked matrices from their singular values s (n, min(d_out, d_in)); U and V stay."""

    def __init__(self, weight: Tensor, parts: int):
        super().__init__()
        u, self._start, v = torch.linalg.svd(torch.stack(weight.detach().float().chunk(parts)), full_matrices=False)
        self.register_buffer("u", u.to(weight.dtype))
        self.register_buffer("v", v.to(weight.dtype))

    def forward(self, s: Tensor) -> Tensor:
        return ((self.u * s[:, None]) @ self.v).flatten(0, 1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return self._start.to(weight)


@TUNING.register_module()
class SingularValues(Tuning):
    """Singular values of all attention and feed-forward weights; they may become negative."""

    def tune(self, tower, name):
        for module in side(tower, name).values():
            if isinstance(module, nn.MultiheadAttention):
                yield self._decompose(module, "in_proj_weight", 3)
                yield self._decompose(module.out_proj, "weight", 1)
            elif hasattr(module, "c_fc") and hasattr(module, "c_proj"):
                yield self._decompose(module.c_fc, "weight", 1)
                yield self._decompose(module.c_proj, "weight", 1)

    @staticmethod
    def _decompose(module: nn.Module, key: str, parts: int) -> nn.Parameter:
        weight = getattr(module, key)
        parametrize.register_parametrization(module, key, Spectrum(weight, parts).to(weight.device))
        return module.parametrizations[key].original
