"""Presets that replace a weight by a formula with fewer numbers to train."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ovseg.registry import TUNING
from ovseg.towers.parts import stacks

from .base import Tuning


class Stacked(nn.Module):
    """in_proj_weight (3D, D) from its parts W_q, W_k, W_v, so that they can train apart."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([q, k, v])

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.clone() for part in weight.chunk(3))


@TUNING.register_module()
class QV(Tuning):
    """W_q and W_v of all attention; biases stay."""

    part = "attention"

    def tune(self, tower, parts):
        for module, name, count, chosen in stacks(w for each in parts.attention for w in (each.q, each.v)):
            if count == 1:
                yield getattr(module, name)
                continue
            parametrize.register_parametrization(module, name, Stacked())
            stacked = module.parametrizations[name]
            for index in range(count):
                original = getattr(stacked, f"original{index}")
                original.requires_grad_(False)
                if index in chosen:
                    yield original


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

    part = "attention"

    def __init__(self, towers=("visual",), rank: int = 8, alpha: float = 8.0, targets: Sequence[str] = ("q", "v")):
        super().__init__(towers)
        if rank < 1 or not targets or set(targets) - {"q", "k", "v", "out"}:
            raise ValueError(f"LoRA: rank is at least 1, targets some of q, k, v, out; got {rank}, {tuple(targets)}.")
        self.rank, self.alpha, self.targets = rank, alpha, tuple(targets)

    def tune(self, tower, parts):
        wanted = (getattr(attention, target) for attention in parts.attention for target in self.targets)
        for module, name, count, chosen in stacks(wanted):
            weight = getattr(module, name)
            change = LowRank(weight, count, chosen, self.rank, self.alpha).to(weight.device)
            parametrize.register_parametrization(module, name, change)
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

    part = "attention"

    def tune(self, tower, parts):
        attention = [w for each in parts.attention for w in (each.q, each.k, each.v, each.out)]
        for module, name, count, _ in stacks((*attention, *parts.feed_forward)):
            weight = getattr(module, name)
            parametrize.register_parametrization(module, name, Spectrum(weight, count).to(weight.device))
            yield module.parametrizations[name].original
