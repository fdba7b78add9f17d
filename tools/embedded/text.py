"""The text tower: open_clip's ``TextTransformer`` with a token table of low rank.

    table (V, D) = codes (V, r) · basis (r, D)

The codes are what is stored (8 bit in the file that ships); ``merged_state`` gives the tower in open_clip's own names.
"""

import numpy as np
import torch
from open_clip.model import CLIPTextCfg
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn

from ovseg.text.templates import IMAGENET_80

TOKENIZER = SimpleTokenizer()
START, END = TOKENIZER.sot_token_id, TOKENIZER.eot_token_id
TEMPLATES = ("{}", "{}.", "a {}", "the {}", "a photo of {}.", "a photo of a {}.", "a picture of {}", *IMAGENET_80)


class LowRankTable(nn.Module):
    """Token ids (B, L) → vectors (B, L, D)."""

    def __init__(self, size: int, rank: int, width: int):
        super().__init__()
        self.codes = nn.Embedding(size, rank)
        self.basis = nn.Parameter(torch.empty(rank, width))
        nn.init.orthogonal_(self.basis)

    def forward(self, ids: Tensor) -> Tensor:
        return self.codes(ids) @ self.basis

    def start_from(self, vectors: Tensor, spread: float = 0.1):
        """Codes = principal components of ``vectors`` (V, d), partly whitened, with entries of about ``spread``."""
        centered = vectors.float() - vectors.float().mean(0)
        values, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
        rank = self.codes.weight.shape[1]
        codes = centered @ directions[:, -rank:] / values[-rank:].sqrt().clamp_min(1e-6).sqrt()
        self.codes.weight.data = spread * codes / codes.std()


class TextTower(TextTransformer):
    """``TextTransformer`` that reads batches only as long as their longest phrase (attention is causal)."""

    def __init__(self, embed_dim: int, config: dict, rank: int):
        c = CLIPTextCfg(**config)
        super().__init__(c.context_length, c.vocab_size, c.width, c.heads, c.layers, output_dim=embed_dim)
        self.token_embedding = LowRankTable(c.vocab_size, rank, c.width)

    def _embeds(self, text: Tensor):
        x, mask = super()._embeds(text)
        return x, mask[: text.shape[1], : text.shape[1]]

    def merged_state(self) -> dict[str, Tensor]:
        """The state under open_clip's names, the token table multiplied out."""
        state = {name: value.detach() for name, value in self.state_dict().items()}
        codes, basis = state.pop("token_embedding.codes.weight"), state.pop("token_embedding.basis")
        return state | {"token_embedding.weight": codes @ basis}


class Phrases:
    """Phrases as ids, kept in pieces so that templates cost nothing."""

    def __init__(self, context: int):
        self.context = context
        self.templates = [tuple(TOKENIZER.encode(part) for part in t.split("{}")) for t in TEMPLATES]
        self.known: dict[str, list[int]] = {}

    def ids(self, phrase: str) -> list[int]:
        if phrase not in self.known:
            self.known[phrase] = TOKENIZER.encode(phrase)
        return self.known[phrase]

    def row(self, phrase: str, template: int | None = None) -> list[int]:
        """Start, phrase (in a template), end; too long a phrase is cut."""
        before, after = self.templates[template] if template is not None else ([], [])
        return [START, *[*before, *self.ids(phrase), *after][: self.context - 2], END]

    def batch(self, phrases: list[str], rng: np.random.Generator | None = None, share: float = 0.5) -> Tensor:
        """Ids (n, L), padded with zeros; with ``rng`` a share of them in random templates."""
        drawn = [None] * len(phrases)
        if rng is not None:
            drawn = [int(rng.integers(len(TEMPLATES))) if rng.random() < share else None for _ in phrases]
        return pad([self.row(phrase, t) for phrase, t in zip(phrases, drawn, strict=True)])


def pad(rows: list[list[int]]) -> Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])
