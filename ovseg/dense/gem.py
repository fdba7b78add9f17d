"""Grounding Everything: Emerging Localization Properties in Vision-Language Transformers (Bousselham et al., CVPR
2024): GEM.

A second stream G runs parallel to the unchanged tokens x through the last blocks, starting from G = x:

    [q, k, v] of LN₁(x),   β = s · mean_t ‖LN₁(x)_t‖        (one inverse temperature per image, class token included)
    for t in {v, k, q}:    n times  t ← softmax(β t̂ t̂ᵀ) t̂,     o_t = softmax(β t̂ t̂ᵀ) v       (t̂: rows at unit length)
    G ← G + O((o_v + o_k + o_q) / 3),                         f = proj(ln_post(G))

G has no feed-forward, but keeps its own residual.
"""

import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import DENSE
from ovseg.towers import Tower

from .base import DenseExtractor, patches, to_grid
from .features import DenseFeatures


@DENSE.register_module()
class GEM(DenseExtractor):
    """The parallel self-self stream.

    Args:
        depth: one more than the number of blocks that G runs through, as the reference counts. None: the published 7
            (the last 6 blocks), limited to half of the tower's blocks.
        iterations: n; 0 for plain self-self attention.
        inverse_temperature: β; None: computed for each image.
        **options: see ``DenseExtractor``.

    The published protocol resizes the image to 448×448 and uses one template.  The reference displays the map of each
    prompt min-max normalized over the image: ``ovseg.score.min_max``.

    Raises:
        ValueError: ``depth`` below 2 or a negative number of iterations.
    """

    positions = "antialias"
    requires = ("attention_blocks",)
    name = "gem"
    paper = "GEM, CVPR 2024"
    protocol = dict(size=(448, 448), window=None, templates=("a photo of a {}.",), logit_scale=100)

    def __init__(
        self, depth: int | None = None, iterations: int = 1, inverse_temperature: float | None = None, **options
    ):
        super().__init__(**options)
        if (depth is not None and depth < 2) or iterations < 0:
            raise ValueError(f"GEM: depth is at least 2 and iterations at least 0, got {depth} and {iterations}.")
        self.depth, self.iterations, self.inverse_temperature = depth, iterations, inverse_temperature

    def attend(self, block, normed: Tensor) -> Tensor:
        """(o_v + o_k + o_q) / 3 of LN₁(x) (B, N, D): (B, heads, N, d)."""
        q, k, v = block.qkv(normed)
        if self.inverse_temperature is None:
            beta = (block.scale * normed.norm(dim=-1).mean(-1)).view(-1, 1, 1, 1)
        else:
            beta = self.inverse_temperature

        def attended(t: Tensor) -> Tensor:
            for _ in range(self.iterations):
                unit = F.normalize(t, dim=-1)
                t = F.scaled_dot_product_attention(beta * unit, unit, unit, scale=1.0)
            unit = F.normalize(t, dim=-1)
            return F.scaled_dot_product_attention(beta * unit, unit, v, scale=1.0)

        return (attended(v) + attended(k) + attended(q)) / 3

    def forward(self, tower: Tower, images: Tensor) -> DenseFeatures:
        """Dense features of normalized images (B, 3, H, W) of any size."""
        state, padding = self.start(tower, images)
        depth = len(tower.blocks)
        count = min(6, max(1, depth // 2)) if self.depth is None else self.depth - 1
        first = max(0, depth - count)
        state = tower.advance(state, first)
        stream = state.x
        for index in range(first, depth):
            if index > first:
                state = tower.advance(state, index)
            block = tower.blocks[index]
            stream = stream + block.out(self.attend(block, block.ln_1(state.x)))
        features = to_grid(tower.project(patches(stream, state.grid)), state.grid)
        return DenseFeatures(features, tower.embedding(state.x, state.grid), padding)
