"""Prompted region embeddings in the manner of CLOC (Chen et al., ICML 2025): our interpretation, not a reproduction.

Neither code nor weights are public.  The paper describes a light Prompter that turns the tokens of an image and a box
or a text into the embedding of a region: one transformer layer and a pooling [recalled]; everything below
is [inferred].

p = W_b φ(box)  or  W_t text               φ: sines and cosines of x1, y1, x2, y2 at octaves
k, v from x_j + W_c φ(place of patch j)    x_j the tokens of the last block
p' = p + Attention(p; x),  p'' = p' + FFN(p')     the layer's output for the prompt, which pools the tokens
f = W_f LN(p''),   box = σ(MLP LN(p''))
ℓ = contrast(f, caption) + grounding,   grounding = λ₁ |box − b|₁ + λ₂ (1 − GIoU)
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou_loss


class Prompter(nn.Module):
    """Maps a box or text prompt and the tokens of an image to the embedding of the region, and a text to its box.

    Args:
        width: D of the tokens.
        embed_dim: E of the joint space.
        heads: number of heads, a divisor of D.
        octaves: frequencies of φ.
    """

    frequencies: Tensor

    def __init__(self, width: int, embed_dim: int, heads: int = 8, octaves: int = 6):
        super().__init__()
        self.heads = heads
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(octaves), persistent=False)
        self.box = nn.Linear(8 * octaves, width)
        self.text = nn.Linear(embed_dim, width)
        self.place = nn.Linear(8 * octaves, width)
        self.norm_prompt, self.norm_tokens, self.norm_ffn, self.norm_out = (nn.LayerNorm(width) for _ in range(4))
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.project = nn.Linear(width, embed_dim, bias=False)
        self.locate = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))

    def of_boxes(self, boxes: Tensor) -> Tensor:
        """Prompts (R, D) of boxes (R, 4), x1, y1, x2, y2 as fractions of the image's width and height."""
        return self.box(self._waves(boxes))

    def of_texts(self, texts: Tensor) -> Tensor:
        """Prompts (R, D) of text embeddings (R, E)."""
        return self.text(texts)

    def decode(self, tokens: Tensor, grid: tuple[int, int], prompts: Sequence[Tensor]) -> Tensor:
        """LN(p'') (ΣR, D), concatenated over images.

        Args:
            tokens: (B, h·w, D), patches only.
            grid: (h, w).
            prompts: B tensors (R_b, D).

        Raises:
            ValueError: tokens that do not match the grid, or a number of prompt tensors that does not match the images.
        """
        if len(prompts) != len(tokens) or tokens.shape[1] != grid[0] * grid[1]:
            raise ValueError(
                f"Prompter takes tokens (B, h·w, D) of patches alone and for each picture its prompts (R, D); got "
                f"{tuple(tokens.shape)} on a grid of {grid[0]}×{grid[1]} and {len(prompts)} tensor(s) of prompts."
            )
        keys, values = self.kv(self.norm_tokens(tokens) + self.place(self._waves(patch_boxes(grid).to(tokens)))).chunk(
            2, -1
        )
        outputs = [tokens.new_zeros(0, tokens.shape[-1])]
        for k, v, p in zip(keys, values, prompts, strict=True):
            q, k, v = (t.unflatten(1, (self.heads, -1)).transpose(0, 1) for t in (self.q(self.norm_prompt(p)), k, v))
            p = p + self.out(F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
            outputs.append(p + self.ffn(self.norm_ffn(p)))
        return self.norm_out(torch.cat(outputs))

    def forward(self, tokens: Tensor, grid: tuple[int, int], prompts: Sequence[Tensor]) -> Tensor:
        """Embeddings of the regions (ΣR, E), not normalized; see ``decode``."""
        return self.project(self.decode(tokens, grid, prompts))

    def ground(self, tokens: Tensor, grid: tuple[int, int], prompts: Sequence[Tensor]) -> Tensor:
        """Boxes (ΣR, 4) of text prompts, x1, y1, x2, y2 as fractions of the image; see ``decode``."""
        center = self.locate(self.decode(tokens, grid, prompts)).sigmoid()
        return box_convert(center, "cxcywh", "xyxy")

    def _waves(self, boxes: Tensor) -> Tensor:
        """φ: (…, 4) → (…, 8·octaves)."""
        angles = boxes[..., None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)


def patch_boxes(grid: tuple[int, int]) -> Tensor:
    """Boxes (h·w, 4) of the patches as fractions of the image, in row-major order."""
    h, w = grid
    top, left = torch.meshgrid(torch.arange(h) / h, torch.arange(w) / w, indexing="ij")
    return torch.stack([left, top, left + 1 / w, top + 1 / h], -1).flatten(0, 1)


def grounding_loss(predicted: Tensor, boxes: Tensor, distance: float = 5.0, overlap: float = 2.0) -> Tensor:
    """Mean over regions of λ₁ |predicted − boxes|₁ + λ₂ (1 − GIoU), boxes (R, 4) as fractions; zero without regions.

    The weights λ are DETR's.
    """
    if not len(predicted):
        return predicted.sum()
    apart = (predicted - boxes).abs().sum(1)
    return (distance * apart + overlap * generalized_box_iou_loss(predicted, boxes, reduction="none")).mean()
