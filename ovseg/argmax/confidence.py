"""Confidence of the winners: the softmax over all prompts at each pixel, computed only on demand.

    p = exp(m − L),   L = log Σ_prompts exp(m_t),   margin = p − exp(m' − L)

m is the logit of the winner, τ·s (or log s where the scores are probabilities), and m' that of the best prompt of
another class.

Whether p < θ is often known without the sum.  L is convex in the logits and a pixel's logits are a convex combination
of those v_i of its four breakpoints with weights w_i, so with π_i = softmax(v_i)

    max_i Σ_j w_j (L_i + ⟨π_i, v_j − v_i⟩)  ≤  L  ≤  Σ_j w_j L_j                          (tangents, and Jensen)

Where scores are probabilities, L = log Σ max(s, 10⁻¹²) and the bounds are Σ_j w_j Σ s_j and Σ_j w_j Σ max(s_j, 10⁻¹²).
The sum is computed only for pixels where θ lies between the bounds.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .breakpoints import BreakpointMaps

PORTION = 4 * 2**20  # bytes of logits processed at a time, about what fits into a core's cache
LEAST = 1e-12  # smallest score that is a probability
ROUNDING = 1e-4  # slack in log p, so that the bounds hold in single precision


@dataclass
class Confidence:
    """Confidence of a label map, evaluated on demand.

    maps           breakpoint values of all prompts
    winners        (H, W) int32, index of the winning prompt
    classes        (T,) class of each prompt
    scale          τ, or None if the scores are probabilities
    excluded       (T,) bool, prompts that may not win (they still count in the sum), or None
    memory         bytes that the breakpoint values of all prompts may take at a time
    """

    maps: BreakpointMaps
    winners: Tensor
    classes: Tensor
    scale: float | None
    excluded: Tensor | None
    memory: int

    @torch.inference_mode()
    def scores(self) -> tuple[Tensor, Tensor]:
        """Probability of the winner and its margin over the second class, both (H, W) float32 in [0, 1]."""
        p = torch.empty(self.winners.shape, device=self.winners.device)
        margin = torch.empty_like(p)
        for values, (rows, low, below, down), (x, left, right, across) in self._tiles():
            values = values.view(-1, int(right.max()) + 1, values.shape[1])
            most = max(1, PORTION // (4 * values.shape[2]))
            height, width = max(1, most // len(x)), min(most, len(x))
            for a in range(0, len(rows), height):
                band = slice(a, a + height)
                side = torch.lerp(values[low[band]], values[below[band]], down[band, None, None])
                for b in range(0, len(x), width):
                    part = slice(b, b + width)
                    logits = torch.lerp(side[:, left[part]], side[:, right[part]], across[part, None])
                    at = (rows[band, None], x[part])
                    results = self._confidence(logits.flatten(0, 1), self.winners[at].flatten().long())
                    for map_, piece in zip((p, margin), results, strict=True):
                        map_[at] = piece.view(logits.shape[:2])
        return p, margin

    @torch.inference_mode()
    def below(self, threshold: float) -> Tensor:
        """(H, W) bool, True where the probability of the winner is below a threshold."""
        result = torch.empty(self.winners.shape, dtype=torch.bool, device=self.winners.device)
        level = torch.tensor(threshold, dtype=torch.float64).log().item()
        for values, (rows, low, below, down), (columns, left, right, across) in self._tiles():
            width = int(right.max()) + 1
            corners = torch.stack([y[:, None] * width + x for y in (low, below) for x in (left, right)], -1)
            corners = corners.flatten(0, 1)
            weights = torch.stack([v[:, None] * h for v in (1 - down, down) for h in (1 - across, across)], -1)
            weights = weights.flatten(0, 1)
            won = self.winners[rows[:, None], columns].flatten().long()
            lowest, highest = self._bounds(values, corners, weights, won)
            under = highest + ROUNDING < level
            unsure = ((lowest - ROUNDING < level) & ~under).nonzero()[:, 0]
            for part in unsure.split(max(1, PORTION // (16 * values.shape[1]))):
                logits = torch.bmm(weights[part, None], values[corners[part]])[:, 0]
                under[part] = self._confidence(logits, won[part])[0] < threshold
            result[rows[:, None], columns] = under.view(len(rows), -1)
        return result

    def _tiles(self):
        """For each tile of breakpoints: logits (breakpoints, T), or scores that are probabilities; and for the rows and
        the columns
        of its pixels: their indices, the breakpoints before and after each (relative to the tile), and the weight of
            the
        latter."""
        for spans in self.maps.tiles(self.memory):
            axes, wide = [], []
            for axis, (a, b) in zip((self.maps.rows, self.maps.columns), spans, strict=True):
                pixels = torch.arange(int(axis.start[a]), int(axis.stop[b - 1]), device=axis.low.device)
                low = axis.low[pixels]
                axes.append((pixels, low - a, axis.next[low] - a, axis.part[pixels]))
                wide.append((a, a + int(axes[-1][2].max()) + 1) if len(pixels) else None)
            if None in wide:
                continue
            values = self.maps.values(*wide)
            yield (values if self.scale is None else values.mul_(self.scale)), *axes

    def _confidence(self, logits: Tensor, won: Tensor) -> tuple[Tensor, Tensor]:
        """Probability and margin, (n,) each, of logits (n, T), which are overwritten."""
        if self.scale is None:
            logits = logits.clamp_(min=LEAST).log_()
        total = logits.logsumexp(1)
        if self.excluded is not None:
            logits.masked_fill_(self.excluded, -torch.inf)
        p = (logits.gather(1, won[:, None])[:, 0] - total).exp()
        logits.masked_fill_(self.classes == self.classes[won, None], -torch.inf)
        return p, p - (logits.amax(1) - total).exp()

    def _bounds(self, values, corners, weights, won) -> tuple[Tensor, Tensor]:
        """Bounds of log p, (n,) each."""
        best = (values.flatten()[corners * values.shape[1] + won[:, None]] * weights).sum(1)
        if self.excluded is not None:
            best = best.masked_fill(self.excluded[won], -torch.inf)
        if self.scale is None:
            best = best.clamp(min=LEAST).log()
            sums = values.sum(1), values.clamp(min=LEAST).sum(1)
            lower, upper = ((sum_[corners] * weights).sum(1).clamp(min=LEAST).log() for sum_ in sums)
            return best - upper, best - lower
        log_sum = values.logsumexp(1)
        upper = (log_sum[corners] * weights).sum(1)
        first, cell = corners[:, 0].unique(return_inverse=True)
        cells = corners.new_empty(len(first), 4)
        cells[cell] = corners
        lean = values.new_empty(len(cells), 4, 4)
        most = max(1, self.memory // (32 * values.shape[1]))
        for a in range(0, len(cells), most):
            at = values[cells[a : a + most]]  # (n, 4, T)
            lean[a : a + most] = (at - log_sum[cells[a : a + most]][:, :, None]).exp() @ at.transpose(1, 2)
        tangent = lean - lean.diagonal(dim1=1, dim2=2)[:, :, None] + log_sum[cells][:, :, None]
        lower = (tangent[cell] * weights[:, None]).sum(2).amax(1)
        return best - upper, best - lower
