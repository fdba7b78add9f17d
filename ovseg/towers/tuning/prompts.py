"""Presets that add learned tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ovseg.registry import TUNING

from .base import Tuning


@TUNING.register_module()
class Prompt(Tuning):
    """M learned vectors between the start token and every prompt, shared by all words.

    ``TextEncoder`` puts M placeholder words there, and this preset puts its vectors in place of their embeddings.

    Args:
        length: M.
    """

    def __init__(self, length: int = 16, towers: Sequence[str] = ("text",)):
        super().__init__(towers)
        if self.towers != ("text",) or length < 1:
            raise ValueError(f"Prompt tunes the text side with at least one vector; got {self.towers}, {length}.")
        self.length = length

    def tune(self, tower, parts):
        table = parts.tokens
        table.contexts = nn.Parameter(torch.randn(self.length, table.embedding_dim, device=table.weight.device) * 0.02)
        table.register_forward_hook(_put_contexts)
        tower.prompt_length = self.length
        yield table.contexts


class PromptedBlock:
    """A block that sees learned tokens beside those of the picture."""

    has_residual = True

    def __init__(self, block, owner: nn.Module, index: int):
        self.block, self.owner, self.index = block, owner, index

    def __call__(self, x: Tensor, queries: slice = slice(None)) -> Tensor:
        prompts = _rows(self.owner.visual_prompts[self.index], x)
        return self.block.with_tokens(x, prompts)[:, queries]

    def ln_1(self, x: Tensor) -> Tensor:
        """Where every reader of a block's parts begins.

        Raises:
            ValueError: always; the parts would lack the learned tokens.
        """
        raise ValueError(
            "a block with visual prompts cannot be read part by part; tap the last block, or tune otherwise."
        )


@TUNING.register_module()
class VisualPrompt(Tuning):
    """Learned tokens at every block of a transformer but the last, which dense methods read part by part.

    Beside RoPE (EVA-02) they have no place in the picture and are not turned.

    Args:
        length: tokens per block.
    """

    part = "extra_tokens"

    def __init__(self, length: int = 10, towers: Sequence[str] = ("visual",)):
        super().__init__(towers)
        if self.towers != ("visual",) or length < 1:
            raise ValueError(
                f"VisualPrompt tunes the visual side with at least one token; got {self.towers}, {length}."
            )
        self.length = length

    def tune(self, tower, parts):
        if self.part in parts.blank or len(tower.blocks) < 2:
            return
        owner, depth = tower.visual, len(tower.blocks) - 1
        start = torch.empty(depth, self.length, tower.width, device=tower.device, dtype=tower.dtype)
        owner.visual_prompts = nn.Parameter(nn.init.xavier_uniform_(start))
        tower.blocks = [PromptedBlock(block, owner, i) for i, block in enumerate(tower.blocks[:-1])] + tower.blocks[-1:]
        yield owner.visual_prompts


def _rows(parameter: Tensor, like: Tensor) -> Tensor:
    """(M, D) → (B, M, D) in the dtype of a tensor (B, …)."""
    return parameter.to(like.dtype).expand(len(like), *parameter.shape)


def _put_contexts(table: nn.Embedding, _, out: Tensor) -> Tensor:
    """A hook of the token table: its learned vectors behind the start token, in place of as many words."""
    return torch.cat([out[:, :1], _rows(table.contexts, out), out[:, 1 + len(table.contexts) :]], 1)
