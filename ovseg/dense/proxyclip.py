"""ProxyCLIP: Proxy Attention Improves CLIP for Open-Vocabulary Segmentation (Lan et al., ECCV 2024).

    C = Êᵀ Ê,   M = γ (C − β·mean(C)),   A = softmax(M, entries below 0 masked out),   f = proj(ln_post(O(A v)))

E (C', h', w') are features of another network, Ê its columns at unit length; A is the same for all heads; v, without
the class token, is resized to h'×w' (bilinear), which is also the grid of the output.  No residual, no feed-forward.

The mean is taken per image (the authors take it over the batch), and the diagonal is never masked out: on a very
uniform image (mean(C) > 1/β) it is all that remains, where the authors' code divides zero by zero.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.registry import DENSE, PROXIES
from ovseg.towers import TokenState, Tower

from .base import DenseExtractor, patches, to_grid
from .features import DenseFeatures

ENTRIES = 2**20
"""Attention weights that are held at a time; rows are computed in chunks."""


@DENSE.register_module()
class ProxyCLIP(DenseExtractor):
    """Attention in the last block with weights from another network's features.

    Args:
        proxy: where E comes from: a config such as ``dict(type="TimmProxy", model="vit_base_patch8_224.dino")``, or an
            object like those in ``ovseg.dense.proxies``.  The default requires no download.
        beta, gamma: β and γ.
        **options: see ``DenseExtractor``.

    Raises:
        ValueError: ``gamma`` not positive.
    """

    requires = ("attention_blocks",)
    name = "proxyclip"
    paper = "ProxyCLIP, ECCV 2024"
    protocol = dict(short_side=336, window=336, stride=112, logit_scale=40)

    def __init__(self, proxy=None, beta: float = 1.2, gamma: float = 3.0, **options):
        super().__init__(**options)
        if gamma <= 0:
            raise ValueError(f"ProxyCLIP: gamma must be positive, got {gamma}.")
        proxy = dict(type="TowerProxy") if proxy is None else proxy
        self.proxy = PROXIES.build(dict(proxy)) if isinstance(proxy, dict) else proxy
        self.beta, self.gamma = beta, gamma

    def weights(self, external: Tensor, rows: slice = slice(None), regions: Tensor | None = None) -> Tensor:
        """Rows of A (B, rows, h'·w') of external features (B, C', h', w'); ``regions`` see ``attention_mask``."""
        unit = F.normalize(external.float().flatten(2), dim=1)
        total = unit.sum(2)
        mean = total.square().sum(1)[:, None, None] / unit.shape[2] ** 2  # of all N² cosines, without computing them
        logits = self.gamma * (unit[:, :, rows].transpose(1, 2) @ unit - self.beta * mean)
        positions = torch.arange(unit.shape[2], device=unit.device)
        allowed = self.attention_mask(logits, rows, regions) | (positions[rows, None] == positions)
        return logits.masked_fill(~allowed, -torch.inf).softmax(-1)

    def attention_mask(self, logits: Tensor, rows: slice, regions: Tensor | None = None) -> Tensor:
        """The entries to keep besides the diagonal, for rows of M (B, rows, h'·w'); ``regions`` (B, h'·w') are for
        methods that restrict attention to regions."""
        return logits >= 0

    def forward(self, tower: Tower, images: Tensor, external: Tensor | None = None) -> DenseFeatures:
        """Dense features of normalized images (B, 3, H, W) on the grid of the proxy.

        ``external``: (B, C', h', w') features to use instead of the proxy's; their grid covers the whole image.

        Raises:
            ValueError: external features of another shape.
        """
        return self.within(tower, images, external)

    def within(
        self, tower: Tower, images: Tensor, external: Tensor | None = None, regions: Tensor | None = None
    ) -> DenseFeatures:
        """As ``forward``; ``regions`` see ``attention_mask``."""
        state, padding = self.start(tower, images)
        state = tower.advance(state, -1, self.proxy.taps)
        external = self.proxy(tower, images, state) if external is None else external
        if external.ndim != 4 or len(external) != len(images):
            raise ValueError(
                f"external features are (B, C', h', w') with B = {len(images)} pictures, got {tuple(external.shape)}."
            )
        z = self.mixed(tower, state, external, tuple(external.shape[2:]), regions)
        features = to_grid(tower.project(z.flatten(2).transpose(1, 2)), (z.shape[2], z.shape[3]))
        return DenseFeatures(features, tower.embedding(state.x, state.grid), padding)

    def mixed(
        self,
        tower: Tower,
        state: TokenState,
        external: Tensor,
        grid: tuple[int, int],
        regions: Tensor | None = None,
    ) -> Tensor:
        """z = O(A v) (B, D, h', w') on a grid (h', w') that external features are resized to."""
        if tuple(external.shape[2:]) != grid:
            external = F.interpolate(external, grid, mode="bilinear", align_corners=False)
        block = tower.blocks[-1]
        _, _, v = block.qkv(block.ln_1(state.x))
        batch, heads, _, d = v.shape
        v = patches(v, state.grid).transpose(2, 3).reshape(batch, heads * d, *state.grid)
        v = F.interpolate(v, grid, mode="bilinear", align_corners=False)
        v = v.flatten(2).transpose(1, 2)
        step = max(1, ENTRIES // (batch * v.shape[1]))
        rows = [slice(i, i + step) for i in range(0, v.shape[1], step)]
        mixed = torch.cat([self.weights(external, some, regions).to(v.dtype) @ v for some in rows], 1)
        return to_grid(block.out(mixed.unflatten(2, (heads, d)).transpose(1, 2)), grid)
