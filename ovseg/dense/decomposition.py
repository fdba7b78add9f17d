"""Interpreting CLIP's Image Representation via Text-Based Decomposition (Gandelsman, Efros and Steinhardt, ICLR 2024).

The class token of a pre-norm ViT is a sum of its value before the first block, of what every head of every block reads
from every token, and of every feed-forward.  With its mean μ and deviation σ held fixed, the last normalization is
linear, so the unit image embedding is the sum of K = 2L + 1 terms mapped by

    ℓ(u, ω) = (γ (u − ωμ)/σ + ωβ) P / ‖embedding‖        where the ω of all parts add up to 1
    attention  ℓ(a_lh(cls, t) W_h v_th + b/(N·heads), 1/(K·N·heads))    block l, head h, token t of N
    the rest   ℓ(FFN_l(cls), 1/K),  ℓ(class token before the first block, 1/K)

The dense feature of a patch is the sum of its attention terms over blocks and heads.  Its length reflects the
attention, so it is not normalized; instead, the score of the mean prompt is subtracted (``score.CenteredScore``).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import DENSE
from ovseg.towers import TokenState, Tower, require

from .base import DenseExtractor, to_grid
from .features import DenseFeatures


@dataclass(frozen=True)
class Decomposition:
    """The parts of a unit image embedding, which add up to it.

    attn       (B, L, N, heads, E) what a head of a block reads from a token, the class token first
    mlp        (B, L + 1, E) the class token before the first block, then the feed-forward of every block
    embedding  (B, E) the image embedding, not normalized
    grid       (h, w), N = 1 + h·w
    """

    attn: Tensor
    mlp: Tensor
    embedding: Tensor
    grid: tuple[int, int]

    def total(self) -> Tensor:
        """The sum of all parts, (B, E)."""
        return self.attn.sum((1, 2, 3)) + self.mlp.sum(1)


def decompose(
    tower: Tower, images: Tensor | TokenState, onto: Tensor | None = None, tokens: bool = True
) -> Decomposition:
    """The exact decomposition of the class token's unit embedding, in float32.

    Args:
        tower: a ViT whose image embedding is that of its class token.
        images: normalized (B, 3, H, W), or the input tokens of the first block (``tower.start``), which are not
            modified.
        onto: (T, E) directions, unit text embeddings for example: the last axis of ``attn`` and ``mlp`` then holds T
            inner products with them instead of E coordinates, which is cheaper than computing them afterwards.
        tokens: False sums over tokens: ``attn`` has N = 1.

    Raises:
        ValueError: an unsupported tower; tokens that have already passed a block.
    """
    state = images if isinstance(images, TokenState) else tower.start(images)
    if state.index != 0:
        raise ValueError(
            f"decompose follows the class token from the first block on, but these tokens have already passed "
            f"{state.index} block(s). Give the images, or tower.start(images)."
        )
    rows, taken, feed = state.x[:, 0], [], [state.x[:, 0].float()]
    for weights, v, ffn, row in _class_rows(tower, state.x):
        terms = weights[..., None].float() * v.float()
        taken.append(terms if tokens else terms.sum(2, keepdim=True))
        feed.append(ffn.float())
        rows = row
    embedding = tower.project(rows[:, None])[:, 0]
    readout = _Readout(tower, rows, embedding, onto)
    attn = []
    for block, terms in zip(tower.blocks, taken, strict=True):
        count, heads = terms.shape[2], block.heads
        projection = block.attention.out_proj
        weight = projection.weight.float().unflatten(1, (heads, -1))
        parts = torch.einsum("bhnd,ohd->bnho", terms, weight) + projection.bias.float() / (count * heads)
        attn.append(readout(block.block.ls_1(parts), 1 / (count * heads)))
    return Decomposition(torch.stack(attn, 1), readout(torch.stack(feed, 1), 1.0), embedding, state.grid)


def _class_rows(tower: Tower, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """For each block: the class token's attention (B, heads, N), the values (B, heads, N, d), the class token's
    feed-forward (B, D), and the class token after the block (B, D)."""
    require(tower, ClipPRS.requires, "taking the image embedding apart into heads and tokens")
    last = len(tower.blocks) - 1
    for index, block in enumerate(tower.blocks):
        q, k, v = block.qkv(block.ln_1(x))
        weights = (block.scale * q[:, :, :1] @ k.transpose(-2, -1)).softmax(-1)
        if index == last:  # the patch tokens are not needed any more
            x, mixed = x[:, :1], weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, scale=block.scale)
        y = x + block.out(mixed)
        ffn = block.ffn(y)
        x = y + ffn
        yield weights[:, :, 0], v, ffn[:, 0], x[:, 0]


class _Readout:
    """ℓ: the last normalization, linearized at the class token z (B, D), the projection, and division by the length."""

    def __init__(self, tower: Tower, z: Tensor, embedding: Tensor, onto: Tensor | None = None):
        norm, z = tower.visual.ln_post, z.float()
        length = embedding.float().norm(dim=-1, keepdim=True).clamp(min=1e-12)
        deviation = (z.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        self.mean = z.mean(-1, keepdim=True)
        self.gain, self.beta = norm.weight.float() / (deviation * length), norm.bias.float() / length
        self.matrix = torch.eye(z.shape[-1]).to(z) if tower.visual.proj is None else tower.visual.proj.float()
        if onto is not None:
            self.matrix = self.matrix @ onto.to(self.matrix).T
        self.terms = 2 * len(tower.blocks) + 1

    def __call__(self, u: Tensor, share: float) -> Tensor:
        """(B, …, D) → (B, …, E) for parts that each make up ``share`` of one of the K terms."""
        mean, gain, beta = (t.view(len(t), *[1] * (u.ndim - 2), -1) for t in (self.mean, self.gain, self.beta))
        share = share / self.terms
        return (gain * (u - share * mean) + share * beta) @ self.matrix


@DENSE.register_module(name="clip_prs")
class ClipPRS(DenseExtractor):
    """The contribution of every patch to the image embedding: attention terms summed over blocks and heads.

    ``features.sum((2, 3))`` is the part of the unit embedding that comes directly from the patches.

    Args:
        layers: blocks to sum over, counted from 0, negative ones from the end; None: all.
        remove_heads: pairs (block, head) to exclude from the sum, such as heads that attend to spurious features.
        positions, padding: see ``DenseExtractor``.

    Raises:
        ValueError: no blocks, or invalid pairs; at run time, a block or head that the tower does not have.
    """

    name = "clip_prs"
    paper = "Interpreting CLIP, ICLR 2024"
    protocol = dict(short_side=224, window=None, logit_scale=100)
    scorer = dict(type="CenteredScore")
    requires = ("attention_blocks", "class_token", "class_pooling", "additive_heads")

    def __init__(
        self,
        layers: Sequence[int] | None = None,
        remove_heads: Iterable[tuple[int, int]] = (),
        positions: str | None = None,
        padding: str | None = None,
    ):
        super().__init__(positions, padding)
        self.layers = None if layers is None else _whole_numbers(layers)
        if self.layers == ():
            raise ValueError(f"layers: numbers of blocks, at least one, such as [-4, -3, -2, -1]; got {layers!r}.")
        pairs = list(remove_heads) if isinstance(remove_heads, Iterable) else [()]
        self.remove_heads = tuple(_whole_numbers(pair) for pair in pairs)
        if not all(len(pair) == 2 for pair in self.remove_heads):
            raise ValueError(f"remove_heads are pairs (block, head), such as [(11, 3), (10, 0)]; got {remove_heads!r}.")

    def head_masks(self, tower: Tower) -> list[Tensor]:
        """For every block, (heads,) with 1 for the heads in the sum and 0 for the others.

        Raises:
            ValueError: a block or head that the tower does not have.
        """
        depth, heads = len(tower.blocks), [block.heads for block in tower.blocks]
        layers = range(depth) if self.layers is None else self.layers
        wrong: list[int | tuple[int, ...]] = [layer for layer in layers if not -depth <= layer < depth]
        wrong += [(b, h) for b, h in self.remove_heads if not (-depth <= b < depth and 0 <= h < heads[b])]
        if wrong:
            raise ValueError(
                f"this tower has blocks 0 to {depth - 1} (or -{depth} to -1) with heads 0 to {heads[0] - 1}; there is "
                f"no {', '.join(map(str, wrong))}."
            )
        summed = {layer % depth for layer in layers}
        masks = [torch.full((n,), float(index in summed), device=tower.device) for index, n in enumerate(heads)]
        for block, head in self.remove_heads:
            masks[block][head] = 0
        return masks

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """Dense features of normalized images (B, 3, H, W) of any size.

        Heads are summed inside the output projection and blocks before the joint projection, so the parts of
        ``decompose`` are never stored.

        Raises:
            ValueError: a tower without residual blocks or class token; a block or head that it does not have.
        """
        state, padding = self.start(tower, images)
        head_masks = self.head_masks(tower)
        count = state.x.shape[1]
        total, last = torch.zeros_like(state.x[:, 1:], dtype=torch.float32), state.x[:, 0]
        for block, keep, (weights, v, _, row) in zip(
            tower.blocks, head_masks, _class_rows(tower, state.x), strict=True
        ):
            last, left = row, float(keep.sum())
            if left == 0:
                continue
            terms = (weights.float() * keep[:, None])[:, :, 1:, None] * v[:, :, 1:].float()
            projection = block.attention.out_proj
            bias = projection.bias.float() * (left / (block.heads * count))
            total += block.block.ls_1(F.linear(terms.transpose(1, 2).flatten(2), projection.weight.float(), bias))
        embedding = tower.project(last[:, None])[:, 0]
        share = sum(float(keep.mean()) for keep in head_masks) / count
        features = _Readout(tower, last, embedding)(total, share)
        return DenseFeatures(to_grid(features, state.grid), embedding, padding)


def _whole_numbers(values) -> tuple[int, ...]:
    """The values as a tuple of integers; empty if any of them is not an integer."""
    values = tuple(values) if isinstance(values, Iterable) else ()
    whole = all(isinstance(value, Integral) and not isinstance(value, bool) for value in values)
    return tuple(map(int, values)) if whole else ()
