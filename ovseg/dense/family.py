"""One family: dense methods that change only what the last block(s) do with q, k and v.

    x' = [x] + O( Σ_r softmax(s·R_r + B) v ),   x'' = [x' + FFN(x')],   f = proj(ln_post(x''))

with R_r ∈ {q kᵀ, q qᵀ, k kᵀ, v vᵀ} or the identity (v alone), an additive bias B over token pairs, and the residual
(each token's own or, for all, that of the class token) and the feed-forward kept or dropped.  A method is a
declaration: a subclass that sets the class attributes below.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.towers import TokenState, Tower

from .base import DenseExtractor, to_grid
from .features import DenseFeatures

RELATIONS = ("qk", "qq", "kk", "vv", "identity")


class LastBlock(DenseExtractor):
    """Dense features by another attention in the last block(s).

    Args:
        relations: which token relations are summed, each of ``qk, qq, kk, vv, identity``; every one is a softmax of its
            own, so that rows of the weights sum to ``len(relations)``.
        residual: keep x in x' = x + …; ``"class"`` puts the class token's x in place of every token's own.
        ffn: keep the feed-forward of the block.
        last_n: sum the read-outs of this many last blocks, each fed by the tower's ordinary stream.
        positions: how the position table is resized (``towers.positions``).
        padding: how a picture is fitted to whole patches (``features.pad_to_patches``).

    A ResNet's attention pool has neither residual nor feed-forward, so there the two switches have no meaning.

    ``extras["class_token"]`` (B, E) is the class token's row of the read-out, projected.

    Class attributes ``relations, residual, ffn`` are a method's published choice, ``taps`` what it wants to see of the
    blocks before (``Tower.advance``).

    Raises:
        ValueError: unknown relation, ``last_n`` below one, another ``residual``.
    """

    relations: tuple[str, ...] = ("qk",)
    residual: bool | str = True
    ffn: bool = True
    taps: tuple[str, ...] = ()

    def __init__(
        self,
        relations: Sequence[str] | None = None,
        residual: bool | str | None = None,
        ffn: bool | None = None,
        last_n: int = 1,
        positions: str | None = None,
        padding: str | None = None,
    ):
        super().__init__(positions, padding)
        self.relations = type(self).relations if relations is None else tuple(relations)
        self.residual = type(self).residual if residual is None else residual
        self.ffn = type(self).ffn if ffn is None else ffn
        self.last_n = last_n
        unknown = [r for r in self.relations if r not in RELATIONS]
        if unknown or not self.relations or last_n < 1:
            raise ValueError(
                f"{type(self).__name__}: relations are one or more of {', '.join(RELATIONS)} and last_n is at least 1; "
                f"got relations={self.relations}, last_n={last_n}."
            )
        if isinstance(self.residual, str) and self.residual != "class":
            raise ValueError(
                f'{type(self).__name__}: residual is True, False or "class" (that of the class token), got '
                f"{self.residual!r}."
            )

    def bias(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """B, added to the scaled relations: broadcastable to (B, heads, N, N), or None."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, grid: tuple[int, int]) -> Tensor:
        """Σ_r softmax(s·R_r + B) v, (B, heads, N, d); the N×N weights are never materialised."""
        bias = self.bias(q, k, grid)
        pairs = {"qk": (q, k), "qq": (q, q), "kk": (k, k), "vv": (v, v)}
        total = None
        for relation in self.relations:
            if relation == "identity":
                out = v
            else:
                a, b = pairs[relation]
                out = F.scaled_dot_product_attention(a, b, v, attn_mask=bias, scale=scale)
            total = out if total is None else total + out
        return total

    def extras(self, block, state: TokenState) -> dict[str, Tensor]:
        """What else there is to give to a method's later stages, by name; ``state`` enters the last block."""
        return {}

    def read_out(self, block, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """x'' of one block from the tokens x (B, N, D) that enter it."""
        normed = block.ln_1(x)
        if self.relations == ("identity",) and type(self).attend is LastBlock.attend:
            z = block.out(block.values(normed))
        else:
            z = block.out(self.attend(*block.qkv(normed), block.scale, grid))
        if block.has_residual:
            z = z + (x[:, :1] if self.residual == "class" else x) if self.residual else z
            z = z + block.ffn(z) if self.ffn else z
        return z

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """Dense features of normalised images (B, 3, H, W) of any size.

        Raises:
            ValueError: more blocks asked for than the tower has.
        """
        depth = len(tower.blocks)
        if self.last_n > depth:
            raise ValueError(f"last_n={self.last_n}, but this tower has only {depth} block(s) to read.")
        state, padding = self.start(tower, images)
        state = tower.advance(state, depth - self.last_n, self.taps)
        total = self.read_out(tower.blocks[state.index], state.x, state.grid)
        for index in range(state.index + 1, depth):
            state = tower.advance(state, index, self.taps)
            total = total + self.read_out(tower.blocks[index], state.x, state.grid)
        projected, x, grid = tower.project(total), state.x, state.grid
        extras = {"class_token": projected[:, 0]} | self.extras(tower.blocks[-1], state)
        return DenseFeatures(to_grid(projected[:, 1:], grid), lambda: tower.embedding(x, grid), padding, extras)


def patch_distance(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Squared distances between patches, in patches: (h·w, h·w)."""
    h, w = grid
    rows, columns = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    points = torch.stack([rows.flatten(), columns.flatten()], -1).float()
    return (points[:, None] - points[None]).square().sum(-1)
