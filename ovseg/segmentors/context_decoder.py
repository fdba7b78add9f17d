"""DenseCLIP's context decoder: text embeddings attend to an image (CVPR 2022).

m = LN(W·LN(v)),  x = W·LN(t);   per layer  x += SA(LN₁ x),  x += CA(LN₂ x, m),  x += MLP(LN₃ x);   Δt = W·LN(x)

Queries, keys and values are projected without bias; the memory m is not normalized again.  Names are those of the
released checkpoints.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """softmax(q kᵀ/√d) v over heads of width d, projected; dropout on the result."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """(B, T, D) attends to (B, N, D) → (B, T, D)."""
        pairs = ((self.q_proj, x), (self.k_proj, memory), (self.v_proj, memory))
        q, k, v = (layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer, y in pairs)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj_drop(self.proj(y.transpose(1, 2).flatten(2)))


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention, feed-forward, each after its LayerNorm."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.self_attn, self.cross_attn = (MultiHeadAttention(width, heads, dropout) for _ in range(2))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.self_attn(normed, normed)
        x = x + self.cross_attn(self.norm2(x), memory)
        return x + self.dropout(self.mlp(self.norm3(x)))


class ContextDecoder(nn.Module):
    """Δt for text embeddings, from the tokens of an image.

    Args:
        channels: E of text and image.
        width, heads, layers: of the decoder.
        dropout: in training.

    Raises:
        ValueError: a width that is not a multiple of the number of heads.
    """

    def __init__(self, channels: int, width: int = 256, heads: int = 4, layers: int = 3, dropout: float = 0.1):
        super().__init__()
        if width % heads:
            raise ValueError(f"context_decoder: width {width} is not a multiple of its {heads} heads.")
        self.memory_proj = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width), nn.LayerNorm(width))
        self.text_proj = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers))
        self.out_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, text: Tensor, visual: Tensor) -> Tensor:
        """(B, K, E) of text and (B, N, E) of an image → (B, K, E)."""
        memory, x = self.memory_proj(visual), self.text_proj(text)
        for layer in self.decoder:
            x = layer(x, memory)
        return self.out_proj(x)
