"""Guided upsampling of the aggregated costs (CAT-Seg, section 3.2): each class separately, 2× twice.

    y = deconv(x),   z = ReLU(GN(conv([y ; g]))),   z = ReLU(GN(conv(z)))

g is the projected map of an earlier block.  It is the same for all classes, so its part of the first convolution is
computed once per image.
"""

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


def spread(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """The output (B, out, k·h, k·w) of ``layer``, whose kernel k equals its stride, for (B, C, h, w), channels-last.

    Every position independently fills a cell of k×k, so this is a single matrix product.
    """
    channels, out, k, _ = layer.weight.shape
    weight = layer.weight.permute(2, 3, 1, 0).reshape(-1, channels)
    bias = None if layer.bias is None else layer.bias.repeat(k * k)
    cells = F.linear(x.permute(0, 2, 3, 1), weight, bias).unflatten(-1, (k, k, out)).transpose(2, 3)
    return cells.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class DoubleConv(nn.Module):
    """Two 3×3 convolutions without bias, each followed by group norm (16 channels per group) and ReLU."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        groups = max(1, out // 16)
        self.double_conv = nn.Sequential(
            nn.Conv2d(channels, out, 3, padding=1, bias=False),
            nn.GroupNorm(groups, out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            nn.GroupNorm(groups, out),
            nn.ReLU(inplace=True),
        )

    def forward(self, y: Tensor, guidance: Tensor | None = None) -> Tensor:
        """(B·t, out, h, w) from maps (B·t, Y, h, w) and optional guidance (B, G, h, w)."""
        if guidance is None:
            return self.double_conv(y)
        weight = cast(nn.Conv2d, self.double_conv[0]).weight
        first = F.conv2d(y, weight[:, : y.shape[1]], padding=1).unflatten(0, (len(guidance), -1))
        first += F.conv2d(guidance, weight[:, y.shape[1] :], padding=1)[:, None]
        return self.double_conv[1:](first.flatten(0, 1))


class Up(nn.Module):
    """Doubles the resolution and concatenates the guidance.

    Args:
        channels: input channels.
        out: output channels.
        guidance: channels of the guidance; the deconvolution outputs the remaining ``channels - guidance``.
    """

    def __init__(self, channels: int, out: int, guidance: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels - guidance, 2, 2)
        self.conv = DoubleConv(channels, out)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """(B·t, out, 2h, 2w) from maps (B·t, C, h, w) and guidance (B, G, 2h, 2w)."""
        return self.conv(spread(self.up, x), guidance)
