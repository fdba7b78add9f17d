"""Words → class embeddings: every prompt is encoded, normalized, averaged over templates and normalized again."""

import hashlib
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor

from ovseg.towers import Tower
from ovseg.towers.tokenizer import count_tokens, make_tokenizer, require_tokenizer

from .cache import EmbeddingCache
from .causal import encode_prompts
from .templates import get_templates


class TextEncoder:
    """The text side of a tower.

    Args:
        tower: a tower with a text model.
        templates: a named set or own templates (``text.templates``).
        cache: where embeddings are kept; None keeps none.
        batch: prompts per call of the text tower.

    Raises:
        ValueError: a tower without a text model, or whose tokenizer cannot be made here.
    """

    def __init__(self, tower: Tower, templates="imagenet_80", cache: EmbeddingCache | None = None, batch: int = 256):
        if tower.clip is None:
            raise ValueError("this tower has no text model, so words cannot be encoded; load whole CLIP weights.")
        self.tower, self.cache, self.batch = tower, cache, batch
        self.templates = get_templates(templates)
        require_tokenizer(tower.card.tokenizer, tower.card.name)
        self.context = tower.card.tokenizer.context or tower.clip.context_length

    @property
    def key(self) -> str:
        """Digest of the templates, part of the cache's key."""
        return hashlib.sha256("\n".join(self.templates).encode()).hexdigest()

    @property
    def tokenizer(self) -> SimpleTokenizer | HFTokenizer:
        """What the tower's weights read words with."""
        return make_tokenizer(self.tower.card.tokenizer, self.context)

    def check_known(self, words: Sequence[str]):
        """Warn of words the model has never learned, where it carries the list of those it has."""
        known = self.tower.card.words
        if known is not None:
            strange = [w for w in words if w.casefold() not in known]
            if strange:
                more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
                warnings.warn(
                    f"{self.tower.card.name} has never learned: {', '.join(strange[:5])}{more}; expect nothing of "
                    "such words. See `ovseg words` for the list, or use --weights openai.",
                    stacklevel=3,
                )

    def check_length(self, words: Sequence[str]):
        """Refuse what the tower cannot read to its end.

        Raises:
            ValueError: a prompt longer than the text tower's context.
        """
        longest = max(self.templates, key=lambda t: count_tokens(self.tokenizer, t))
        for word in words:
            length = count_tokens(self.tokenizer, longest.format(word)) + self.tower.prompt_length
            if length > self.context:
                short = word if len(word) < 60 else word[:57] + "…"
                raise ValueError(
                    f"the prompt for {short!r} has {length} tokens with the template {longest!r}; this tower reads "
                    f"at most {self.context}. Shorten the name, or use shorter templates (templates='name')."
                )

    @torch.inference_mode()
    def __call__(self, words: Sequence[str], progress=None) -> Tensor:
        """Unit embeddings (T, E) of T words, in their order, float32 on the tower's device.

        ``progress`` is called with the number of words done so far.

        Raises:
            ValueError: no word, or a prompt longer than the text tower's context.
        """
        if not words:
            raise ValueError("no words to encode: give at least one name.")
        unique = list(dict.fromkeys(words))
        done: dict[str, Tensor] = {}
        if self.cache is not None:
            done = self.cache.get(self.tower.card.identity, self.key, unique)
        todo = [word for word in unique if word not in done]
        if todo:
            self.check_length(todo)
        self.check_known(words)
        todo.sort()  # the last bits of an embedding depend on the others of its batch
        step = max(1, 8 * self.batch // len(self.templates))  # enough prompts to sort by length
        for start in range(0, len(todo), step):
            part = todo[start : start + step]
            fresh = dict(zip(part, self.encode(part).cpu(), strict=True))
            done |= fresh
            if self.cache is not None:
                self.cache.put(self.tower.card.identity, self.key, fresh)
            if progress is not None:
                progress(len(unique) - len(todo) + start + len(part))
        return torch.stack([done[word].float() for word in words]).to(self.tower.device)

    def tokens(self, words: Sequence[str]) -> Tensor:
        """Token ids (T·P, context) of all prompts, those of one word together.

        Where the tower has learned vectors before its prompts (``towers.tuning.Prompt``), as many placeholders stand
        for them.
        """
        before = "x " * self.tower.prompt_length
        prompts = [before + template.format(word) for word in words for template in self.templates]
        return self.tokenizer(prompts).to(self.tower.device)

    def encode(self, words: Sequence[str], average: bool = True) -> Tensor:
        """As a call, but with gradients where the text tower has any, and neither checked nor kept.

        Args:
            words: T words.
            average: over templates; otherwise unit embeddings (T, P, E) of every prompt.
        """
        each = encode_prompts(self.tower.clip, self.tokens(words), self.batch).float()
        each = F.normalize(each, dim=-1).unflatten(0, (len(words), -1))
        return F.normalize(each.mean(1), dim=-1) if average else each
