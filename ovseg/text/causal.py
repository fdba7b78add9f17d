"""The text tower on the tokens that matter: CLIP's is causal, so nothing behind the end token can change a prompt.

e = W·LN(x_end),   x the first L tokens through the blocks, L the longest prompt of a batch up to its end token

Prompts are sorted by length, so that those of a batch are nearly equal; the result is that of the full context.
"""

import torch
from torch import Tensor, nn


def text_parts(clip: nn.Module) -> nn.Module:
    """The module that holds the parts of an open_clip text tower: ``CLIP`` itself, or the ``text`` of others."""
    return clip if hasattr(clip, "token_embedding") else clip.text


def is_causal(clip: nn.Module) -> bool:
    """Whether the embedding of a prompt is read at its end token behind causal attention."""
    text = text_parts(clip)
    pooled_at_end = getattr(text, "text_pool_type", getattr(text, "pool_type", None)) in ("argmax", "eos")
    masked = isinstance(getattr(text, "attn_mask", None), Tensor) and not getattr(text, "use_pad_mask", False)
    return pooled_at_end and masked and getattr(text, "cls_emb", None) is None


def encode_prompts(clip: nn.Module, tokens: Tensor, batch: int = 256) -> Tensor:
    """Embeddings (N, E) of prompts, not normalized, as ``clip.encode_text`` gives them.

    Args:
        clip: an open_clip model.  Text towers that are not causal are run on their whole context.
        tokens: (N, context) ids; the end token is the largest one of a prompt, or that of the tower (``eos`` pooling).
        batch: prompts at a time.
    """
    if not is_causal(clip):
        return torch.cat([clip.encode_text(part) for part in tokens.split(batch)])
    lengths = end_of(text_parts(clip), clip, tokens) + 1
    order = lengths.argsort(stable=True)
    parts = [_at_end(text_parts(clip), tokens[rows], lengths[rows]) for rows in order.split(batch)]
    return torch.cat(parts)[order.argsort()]


def end_of(text: nn.Module, clip: nn.Module, tokens: Tensor) -> Tensor:
    """Places (N,) of the end tokens, as open_clip pools."""
    if getattr(text, "text_pool_type", getattr(text, "pool_type", None)) == "argmax":
        return tokens.argmax(1)
    end = clip.text_eos_id if text is clip else text.eos_id
    return (tokens == end).int().argmax(1)


def _at_end(text: nn.Module, tokens: Tensor, lengths: Tensor) -> Tensor:
    longest = int(lengths.max())
    dtype = text.transformer.get_cast_dtype()
    x = text.token_embedding(tokens[:, :longest]).to(dtype) + text.positional_embedding[:longest].to(dtype)
    x = text.transformer(x, attn_mask=text.attn_mask[:longest, :longest])
    end = text.ln_final(x[torch.arange(len(x), device=x.device), lengths - 1])
    if text.text_projection is None:
        return end
    return text.text_projection(end) if isinstance(text.text_projection, nn.Linear) else end @ text.text_projection
