"""Interpreting CLIP's Image Representation via Text-Based Decomposition (Gandelsman, Efros and Steinhardt, ICLR 2024).

The class token of a pre-norm ViT is a sum: of itself before the first block, of what every head of every block takes
from every token, and of every feed-forward.  With its own mean μ and deviation σ the last normalisation is linear, so
the unit image embedding is the sum of K = 2L + 1 terms seen through

    ℓ(u, ω) = (γ (u − ωμ)/σ + ωβ) P / ‖embedding‖        where the ω of all parts add up to 1
    attention  ℓ(a_lh(cls, t) W_h v_th + b/(N·heads), 1/(K·N·heads))    block l, head h, token t of N
    the rest   ℓ(FFN_l(cls), 1/K),  ℓ(class token before the first block, 1/K)

Dense feature of a patch: its attention terms, summed over blocks and heads.  Their length carries the attention, so
they are not brought to unit length but compared after subtraction of the mean word (``score.CentredScore``).
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
    """The parts of a unit image embedding; all of them add up to it.

    attn       (B, L, N, heads, E) what a head of a block takes from a token, the class token first
    mlp        (B, L + 1, E) the class token before the first block, then the feed-forward of every block
    embedding  (B, E) the image embedding, not normalised
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
        images: normalised (B, 3, H, W), or the tokens that enter its first block (``tower.start``), which stay as they
            are.
        onto: (T, E) directions, unit word embeddings for example: the last axis of ``attn`` and ``mlp`` is then T
            inner products with them instead of E coordinates, which is cheaper than taking them afterwards.
        tokens: False sums over tokens: ``attn`` has N = 1.

    Raises:
        ValueError: another kind of tower; tokens that have already passed a block.
    """
    state = images if isinstance(images, TokenState) else tower.start(images)
    if state.index != 0:
        raise ValueError(
            f"decompose follows the class token from the first block on, but these tokens have already passed "
            f"{state.index} block(s). Give the images, or tower.start(images)."
        )
    rows, taken, feed = [], [], [state.x[:, 0].float()]
    for weights, v, ffn, row in _class_rows(tower, state.x):
        terms = weights[..., None].float() * v.float()
        taken.append(terms if tokens else terms.sum(2, keepdim=True))
        feed.append(ffn.float())
        rows = row
    embedding = tower.project(rows[:, None])[:, 0]
    read = _Readout(tower, rows, embedding, onto)
    attn = []
    for block, terms in zip(tower.blocks, taken, strict=True):
        count, heads = terms.shape[2], block.heads
        projection = block.attention.out_proj
        weight = projection.weight.float().unflatten(1, (heads, -1))
        parts = torch.einsum("bhnd,ohd->bnho", terms, weight) + projection.bias.float() / (count * heads)
        attn.append(read(block.block.ls_1(parts), 1 / (count * heads)))
    return Decomposition(torch.stack(attn, 1), read(torch.stack(feed, 1), 1.0), embedding, state.grid)


def _class_rows(tower: Tower, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The tower block by block: the class token's attention (B, heads, N), the values (B, heads, N, d), the class
    token's feed-forward and the class token that leaves the block, (B, D) both."""
    require(tower, ClipPRS.requires, "taking the image embedding apart into heads and tokens")
    last = len(tower.blocks) - 1
    for index, block in enumerate(tower.blocks):
        q, k, v = block.qkv(block.ln_1(x))
        weights = (block.scale * q[:, :, :1] @ k.transpose(-2, -1)).softmax(-1)
        if index == last:  # nobody reads the patch tokens any more
            x, mixed = x[:, :1], weights @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, scale=block.scale)
        y = x + block.out(mixed)
        ffn = block.ffn(y)
        x = y + ffn
        yield weights[:, :, 0], v, ffn[:, 0], x[:, 0]


class _Readout:
    """ℓ: the last normalisation made linear by the class token z (B, D), the projection, and division by the length."""

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
        """(B, …, D) → (B, …, E) for parts that are each ``share`` of one of the K terms."""
        mean, gain, beta = (t.view(len(t), *[1] * (u.ndim - 2), -1) for t in (self.mean, self.gain, self.beta))
        share = share / self.terms
        return (gain * (u - share * mean) + share * beta) @ self.matrix


@DENSE.register_module(name="clip_prs")
class ClipPRS(DenseExtractor):
    """What the image embedding owes to every patch: attention terms summed over blocks and heads.

    ``features.sum((2, 3))`` is the part of the unit embedding that came directly from the patches.

    Args:
        layers: blocks to sum over, from 0, negative ones from the end; None: all.
        remove_heads: pairs (block, head) left out of the sum, heads that look at what should not count for example.
        positions, padding: see ``DenseExtractor``.

    Raises:
        ValueError: no block, pairs that are none; when run, a block or head that the tower does not have.
    """

    name = "clip_prs"
    paper = "Interpreting CLIP, ICLR 2024"
    protocol = dict(short_side=224, window=None, logit_scale=100)
    scorer = dict(type="CentredScore")
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
            raise ValueError(f"layers are numbers of blocks, at least one, such as [-4, -3, -2, -1]; got {layers!r}.")
        pairs = list(remove_heads) if isinstance(remove_heads, Iterable) else [()]
        self.remove_heads = tuple(_whole_numbers(pair) for pair in pairs)
        if not all(len(pair) == 2 for pair in self.remove_heads):
            raise ValueError(f"remove_heads are pairs (block, head), such as [(11, 3), (10, 0)]; got {remove_heads!r}.")

    def kept(self, tower: Tower) -> list[Tensor]:
        """For every block, 1 for the heads in the sum and 0 for the others: (heads,).

        Raises:
            ValueError: a block or head that the tower does not have.
        """
        depth, heads = len(tower.blocks), [block.heads for block in tower.blocks]
        layers = range(depth) if self.layers is None else self.layers
        wrong = [layer for layer in layers if not -depth <= layer < depth]
        wrong += [(b, h) for b, h in self.remove_heads if not (-depth <= b < depth and 0 <= h < heads[b])]
        if wrong:
            raise ValueError(
                f"this tower has blocks 0 to {depth - 1} (or -{depth} to -1) with heads 0 to {heads[0] - 1}; there is "
                f"no {', '.join(map(str, wrong))}."
            )
        summed = {layer % depth for layer in layers}
        kept = [torch.full((n,), float(index in summed), device=tower.device) for index, n in enumerate(heads)]
        for block, head in self.remove_heads:
            kept[block][head] = 0
        return kept

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """Dense features of normalised images (B, 3, H, W) of any size.

        Heads are summed inside the output projection and blocks before the joint projection, so the parts of
        ``decompose`` are never held.

        Raises:
            ValueError: a tower without residual blocks or class token; a block or head that it does not have.
        """
        state, padding = self.start(tower, images)
        kept = self.kept(tower)
        count = state.x.shape[1]
        total, last = torch.zeros_like(state.x[:, 1:], dtype=torch.float32), state.x[:, 0]
        for block, keep, (weights, v, _, row) in zip(tower.blocks, kept, _class_rows(tower, state.x), strict=True):
            last, left = row, float(keep.sum())
            if left == 0:
                continue
            terms = (weights.float() * keep[:, None])[:, :, 1:, None] * v[:, :, 1:].float()
            projection = block.attention.out_proj
            bias = projection.bias.float() * (left / (block.heads * count))
            total += block.block.ls_1(F.linear(terms.transpose(1, 2).flatten(2), projection.weight.float(), bias))
        embedding = tower.project(last[:, None])[:, 0]
        share = sum(float(keep.mean()) for keep in kept) / count
        features = _Readout(tower, last, embedding)(total, share)
        return DenseFeatures(to_grid(features, state.grid), embedding, padding)


def _whole_numbers(values) -> tuple[int, ...]:
    """As a tuple; empty if they are anything but whole numbers."""
    values = tuple(values) if isinstance(values, Iterable) else ()
    whole = all(isinstance(value, Integral) and not isinstance(value, bool) for value in values)
    return tuple(map(int, values)) if whole else ()
