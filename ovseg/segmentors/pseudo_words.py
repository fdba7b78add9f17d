"""Learned class names (PixelCLIP, NeurIPS 2024): K times "A photo of a {L learned tokens} in the scene"."""

import torch
from torch import Tensor, nn

from ovseg.text.encoder import TextEncoder
from ovseg.towers import Tower


class PseudoWords(nn.Module):
    """K names of L learned tokens each, read by a tower's own text side, through which gradients pass.

    Args:
        tower: a tower with a text model.
        count, length: K and L.
        template: a prompt that holds ``{}`` once.
        seed: of the random words of the vocabulary that the names begin as.

    Raises:
        ValueError: a tower without text, a bad template, a prompt longer than the text tower reads.
    """

    def __init__(
        self, tower: Tower, count: int = 64, length: int = 4, template="A photo of a {} in the scene", seed: int = 0
    ):
        super().__init__()
        encoder = TextEncoder(tower, template)
        before, after = (encoder.tokenizer.encode(part.strip()) for part in encoder.templates[0].split("{}"))
        start, end = encoder.tokenizer.sot_token_id, encoder.tokenizer.eot_token_id
        ids = [start, *before, *[0] * length, *after, end]
        if len(ids) > encoder.context:
            raise ValueError(
                f"the template {template!r} with {length} learned tokens has {len(ids)} tokens; this text tower reads "
                f"{encoder.context}. Take a shorter template or fewer tokens."
            )
        ids += [0] * (encoder.context - len(ids))
        self.register_buffer("tokens", torch.tensor(ids).expand(count, -1).clone(), persistent=False)
        self.place = slice(1 + len(before), 1 + len(before) + length)
        table = tower.clip.token_embedding.weight.detach()
        words = table[:start].any(1).nonzero()[:, 0].cpu()  # a pruned table has rows of zeros
        drawn = torch.randint(len(words), (count, length), generator=torch.Generator().manual_seed(seed))
        self.prompt_tokens = nn.Parameter(table[words[drawn].to(table.device)].float().clone())

    def forward(self, tower: Tower) -> Tensor:
        """Embeddings (K, E), not normalized."""

        def replace(module, inputs, embedded: Tensor) -> Tensor:
            learned = self.prompt_tokens.to(embedded)
            return torch.cat([embedded[:, : self.place.start], learned, embedded[:, self.place.stop :]], 1)

        handle = tower.clip.token_embedding.register_forward_hook(replace)
        try:
            return tower.clip.encode_text(self.tokens).float()
        finally:
            handle.remove()
