"""Class names behind learned context vectors (CoOp, IJCV 2022, as DenseCLIP, CVPR 2022, uses it).

prompt of a class   [start][N₂ contexts][its tokens][end][padding],   N₁ + N₂ tokens in all
embedding           text projection of LN(x) at the end token, N₂ places behind where the tokens alone have it

N₁ counts the start, the words and the end.  The contexts belong to the caller, so that they may be shared or differ by
class.
"""

from collections.abc import Sequence
from functools import cache

import open_clip
import torch
from torch import Tensor, nn

POLICIES = ("raise", "truncate", "grow")


@cache
def tokenizer() -> open_clip.SimpleTokenizer:
    """CLIP's tokenizer; making one takes a while."""
    return open_clip.SimpleTokenizer()


def class_tokens(words: Sequence[str], length: int = 5, too_long: str = "raise", limit: int = 77) -> Tensor:
    """Token ids (K, N₁) of class names: start, words, end, zeros.

    Args:
        words: K names.
        length: N₁, the tokens of a class including start and end.
        too_long: of a name that needs more: ``raise``; ``truncate`` its last words, keeping the end token; ``grow``
            N₁ for all classes to the longest name.
        limit: the largest N₁ there are positions for.

    Raises:
        ValueError: no words, an unknown policy, a name that is too long under ``raise``, or beyond ``limit``.
    """
    if too_long not in POLICIES:
        raise ValueError(f"too_long says what becomes of long class names: {', '.join(POLICIES)}; got {too_long!r}.")
    if not words:
        raise ValueError("no class names to encode: give at least one.")
    ids = [tokenizer().encode(word) for word in words]
    longest = max(range(len(ids)), key=lambda i: len(ids[i]))
    needed = len(ids[longest]) + 2
    if needed > length and too_long == "raise":
        raise ValueError(
            f"the class name {words[longest]!r} has {needed} tokens with start and end, and there is room for "
            f"{length}. Shorten the name, or write class_tokens={needed}, too_long='grow' (the same, by itself) or "
            "too_long='truncate' (drops the last words)."
        )
    length = max(length, needed) if too_long == "grow" else length
    if not 3 <= length <= limit:
        raise ValueError(
            f"{length} tokens per class were asked for; the text tower has positions for 3 to {limit} beside the "
            "contexts. Change class_tokens, use fewer context_tokens, or shorten the names."
        )
    table = torch.zeros(len(ids), length, dtype=torch.long)
    for row, word in zip(table, ids, strict=True):
        filled = [tokenizer().sot_token_id, *word[: length - 2], tokenizer().eot_token_id]
        row[: len(filled)] = torch.tensor(filled)
    return table


class ContextTextEncoder(nn.Module):
    """A text tower that reads [start][contexts][rest of the tokens]; its parameters keep their CLIP names.

    The modules are those of ``source``, not copies; the position table is copied and cut to ``length`` rows.

    Args:
        source: open_clip's ``CLIP`` or ``TextTransformer``, or what has the same five parts.
        length: N₁ + N₂.

    Raises:
        ValueError: more tokens than the position table has rows.
    """

    def __init__(self, source: nn.Module, length: int):
        super().__init__()
        pooling = getattr(source, "text_pool_type", getattr(source, "pool_type", "argmax"))
        if pooling != "argmax":
            raise ValueError(
                f"learned contexts need a text tower read at CLIP's end token; this one is read at {pooling!r}. "
                "Choose other weights, such as ViT-B-16/openai."
            )
        rows = source.positional_embedding
        if length > len(rows):
            raise ValueError(
                f"prompts of {length} tokens (contexts and class) do not fit this text tower, which reads {len(rows)}. "
                "Use fewer context_tokens or class_tokens."
            )
        self.token_embedding, self.transformer = source.token_embedding, source.transformer
        self.ln_final, self.text_projection = source.ln_final, source.text_projection
        self.positional_embedding = nn.Parameter(rows.detach()[:length].clone(), rows.requires_grad)

    @property
    def width(self) -> int:
        """Channels of a context vector."""
        return self.token_embedding.embedding_dim

    def forward(self, tokens: Tensor, contexts: Tensor) -> Tensor:
        """Embeddings (K, E), not normalized.

        Args:
            tokens: (K, N₁) ids; the end token has the largest id, as in CLIP.
            contexts: (1, N₂, D) for all classes, or (K, N₂, D).
        """
        words = self.token_embedding(tokens)
        contexts = contexts.expand(len(tokens), -1, -1)
        x = torch.cat([words[:, :1], contexts, words[:, 1:]], 1)
        x = x + self.positional_embedding[: x.shape[1]]
        future = x.new_full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        x = self.ln_final(self.transformer(x, attn_mask=future))
        end = tokens.argmax(-1) + contexts.shape[1]
        x = x[torch.arange(len(x), device=x.device), end]
        return self.text_projection(x) if isinstance(self.text_projection, nn.Module) else x @ self.text_projection
