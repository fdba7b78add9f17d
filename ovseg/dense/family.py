"""The family of dense methods that only change what the last block(s) do with q, k and v.

    x' = [x] + O( Σ_r softmax(s·R_r + B) v ),   x'' = [x' + FFN(x')],   f = proj(ln_post(x''))

with R_r ∈ {q kᵀ, q qᵀ, k kᵀ, v vᵀ} or the identity (v alone), an additive bias B over token pairs, an optional residual
(each token's own, or that of the class token for all) and an optional feed-forward.  A method is a declaration: a
subclass that sets the class attributes below.
"""

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.towers import TokenState, Tower

from .base import DenseExtractor, patches, to_grid
from .features import DenseFeatures

RELATIONS = ("qk", "qq", "kk", "vv", "identity")


class LastBlock(DenseExtractor):
    """Dense features from a modified attention in the last block(s).

    Args:
        relations: the token relations to sum, any of ``qk, qq, kk, vv, identity``; each has its own softmax, so that
            the rows of the weights sum to ``len(relations)``.
        residual: keep x in x' = x + …; ``"class"`` uses the class token's x for every token.
        ffn: keep the feed-forward of the block.
        last_n: sum the outputs of this many last blocks, each computed from the tower's ordinary stream.
        positions: how the position table is resized (``towers.positions``).
        padding: how an image is fitted to whole patches (``features.pad_to_patches``).

    A ResNet's attention pool has neither residual nor feed-forward, so ``residual`` and ``ffn`` have no effect there.

    ``extras["class_token"]`` (B, E) is the projected class token of the modified block, of towers that have one.

    The class attributes ``relations, residual, ffn`` are a method's published choice; ``taps`` are the intermediate
    results of earlier blocks that it needs (``Tower.advance``).

    Raises:
        ValueError: an unknown relation or ``residual``, or ``last_n`` below one.
    """

    requires: tuple[str, ...] = ("attention",)
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
        if self.relations != type(self).relations:
            self.requires = tuple({"attention": 0} | dict.fromkeys(self.requires))
        if self.residual == "class":
            self.requires = tuple(dict.fromkeys(self.requires) | {"class_token": 0})
        if isinstance(self.residual, str) and self.residual != "class":
            raise ValueError(
                f'{type(self).__name__}: residual is True, False or "class" (that of the class token), got '
                f"{self.residual!r}."
            )

    def bias(self, q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """B, added to the scaled relations: broadcastable to (B, heads, N, N), or None."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, grid: tuple[int, int]) -> Tensor:
        """Σ_r softmax(s·R_r + B) v, (B, heads, N, d); the N×N weights are never materialized."""
        bias = self.bias(q, k, grid)
        pairs = {"qk": (q, k), "qq": (q, q), "kk": (k, k), "vv": (v, v)}

        def weighted(relation: str) -> Tensor:
            if relation == "identity":
                return v
            return F.scaled_dot_product_attention(*pairs[relation], v, attn_mask=bias, scale=scale)

        return reduce(torch.add, map(weighted, self.relations))

    def taps_of(self, tower: Tower) -> tuple[str, ...]:
        """The intermediate results of earlier blocks that the method needs of this tower."""
        return self.taps

    def extras(self, tower: Tower, state: TokenState) -> dict[str, Tensor]:
        """Additional tensors for a method's later stages, by name; ``state`` is the input of the last block."""
        return {}

    def read_out(self, block, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """x'' of one block from its input tokens x (B, N, D); a block without attention is read as it is."""
        if not block.has_attention:
            return block(x)
        normed = block.ln_1(x)
        if self.relations == ("identity",) and type(self).attend is LastBlock.attend:
            z = block.out(block.values(normed))
        else:
            q, k, v = block.qkv(normed)
            z = block.out(self.attend(q, k, v, block.scale, grid))
        if block.has_residual:
            z = z + (x[:, :1] if self.residual == "class" else x) if self.residual else z
            z = z + block.ffn(z) if self.ffn else z
        return z

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """Dense features of normalized images (B, 3, H, W) of any size.

        Raises:
            ValueError: ``last_n`` exceeds the number of blocks.
        """
        depth = len(tower.blocks)
        if self.last_n > depth:
            raise ValueError(f"last_n={self.last_n}, but this tower has only {depth} block(s).")
        state, padding = self.start(tower, images)
        taps = self.taps_of(tower)
        state = tower.advance(state, depth - self.last_n, taps)
        total = self.read_out(tower.blocks[state.index], state.x, state.grid)
        for index in range(state.index + 1, depth):
            state = tower.advance(state, index, taps)
            total = total + self.read_out(tower.blocks[index], state.x, state.grid)
        projected, x, grid = tower.project(total), state.x, state.grid
        own = patches(projected, grid)
        extras = {"class_token": projected[:, 0]} if own.shape[1] < projected.shape[1] else {}
        extras |= self.extras(tower, state)
        return DenseFeatures(to_grid(own, grid), lambda: tower.embedding(x, grid), padding, extras)


def patch_distance(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Squared distances between patches, in patches: (h·w, h·w)."""
    h, w = grid
    rows, columns = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    points = torch.stack([rows.flatten(), columns.flatten()], -1).float()
    return (points[:, None] - points[None]).square().sum(-1)
