"""Text embeddings in place of a classifier's weights: shared by the last layers of heads and detectors.

s_k = exp(θ)·max over the prompts t of class k of cos(f, t)    −∞ in training for classes that are hidden from it
s_b = 0 (the zero vector) | exp(θ)·cos(f, b), b learned | exp(θ)·max over prompts of background         last column
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.argmax.synonyms import max_over_synonyms
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import load_tower

LARGEST_SCALE = 100.0
NO_CLASS = -1e4  # logit of a hidden class for sigmoids: with −inf the loss would be NaN


def cosine_logits(features: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    """scale·cos of features (R, E) and text (T, E), neither normalized: (R, T), always in float32."""
    with torch.autocast(features.device.type, enabled=False):
        return scale * (F.normalize(features.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T)


class WordScores(nn.Module):
    """Scaled cosines between features and replaceable text embeddings, which are not stored in checkpoints.

    Args:
        embed_dim: E.
        scale: initial exp(θ).
        learned: whether θ is trained; exp(θ) is capped at 100.
        background: None (no column), ``zero``, ``learned``, or ``words``.

    Attributes:
        text (T, E), prompt_to_class (T,): text embeddings of the prompts and their classes; ``background_text`` (T', E)
        of
            the background prompts; ``hidden`` (K,) classes hidden from training, or None.
        policy: the value of ``background``.
    """

    text: Tensor
    prompt_to_class: Tensor
    hidden: Tensor | None
    background_text: Tensor | None

    def __init__(self, embed_dim: int, scale: float = 1 / 0.07, learned: bool = True, background: str | None = None):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learned)
        self.policy = background
        if background == "learned":
            self.background_vector = nn.Parameter(torch.empty(1, embed_dim))
            nn.init.xavier_uniform_(self.background_vector)
        for name in ("text", "prompt_to_class", "hidden", "background_text"):
            self.register_buffer(name, None, persistent=False)
        self.classes = 0

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def set_words(
        self,
        text: Tensor,
        prompt_to_class: Tensor,
        classes: int,
        hidden: Tensor | None = None,
        background: Tensor | None = None,
    ):
        """Replace the prompts: unit text embeddings (T, E), their classes (T,), and the number K of classes."""
        device = text.device if self.text is None else self.text.device
        self.text, self.prompt_to_class, self.classes = text.to(device), prompt_to_class.to(device), classes
        self.hidden = None if hidden is None or not hidden.any() else hidden.to(device)
        self.background_text = None if background is None else background.to(device)

    def by_class(self, words: Tensor) -> Tensor:
        """Class scores (R, K) from prompt scores (R, T)."""
        return max_over_synonyms(words[:, :, None, None], self.prompt_to_class, self.classes)[:, :, 0, 0]

    def forward(self, features: Tensor, scale: float | None = None) -> Tensor:
        """Logits (R, K), or (R, K + 1) with background last, of features (R, E); ``scale`` replaces exp(θ)."""
        factor = self.scale if scale is None else scale
        logits = self.by_class(cosine_logits(features, self.text, factor))
        if self.training and self.hidden is not None:
            logits = logits.masked_fill(self.hidden, NO_CLASS if self.policy is None else -torch.inf)
        if self.policy is None:
            return logits
        if self.policy == "zero":
            return F.pad(logits, (0, 1))
        vectors = self.background_vector if self.policy == "learned" else self.background_text
        if vectors is None:
            raise ValueError("background='words' needs prompts of background: pass them to set_words(…, background=…).")
        return torch.cat([logits, cosine_logits(features, vectors, factor).amax(1, keepdim=True)], 1)


class NamedWords(WordScores):
    """``WordScores`` that encodes class names itself, loading the tower each time (embeddings are cached on disk).

    Args:
        vocabulary: the classes and their synonyms, anything ``Vocabulary.parse`` accepts.
        weights: whose text tower encodes them, see ``ovseg.towers.weights``.
        templates: averaged for each name, see ``ovseg.text.templates``.
        background: None, ``zero``, ``learned``, or names of background: one string or several.
        unseen: class names hidden from training, also among those later passed to ``set_classes``.
        scale, learned: see ``WordScores``.
        arch, quick_gelu: for weight files that do not record them.

    Raises:
        ValueError: weights without a text tower, or a class without names.
    """

    def __init__(
        self,
        vocabulary,
        weights: str | None = None,
        templates: str | Sequence[str] = "imagenet_80",
        background: str | Sequence[str] | None = None,
        unseen: Sequence[str] = (),
        scale: float = 1 / 0.07,
        learned: bool = True,
        arch: str | None = None,
        quick_gelu: bool | None = None,
    ):
        policy, self._background_words = background_policy(background)
        self._source: dict[str, Any] = dict(weights=weights, arch=arch, quick_gelu=quick_gelu)
        self._templates, self._unseen = templates, tuple(unseen)
        encoded = self._read(Vocabulary.parse(vocabulary))
        super().__init__(encoded["text"].shape[1], scale, learned, policy)
        self._take(encoded)

    def set_classes(self, vocabulary):
        """Replace the classes.

        Raises:
            ValueError: a class without names, or names that the text tower cannot encode.
        """
        self._take(self._read(Vocabulary.parse(vocabulary)))

    def _read(self, vocabulary: Vocabulary) -> dict:
        missing = set(range(len(vocabulary))) - set(vocabulary.prompt_to_class)
        if missing:
            raise ValueError(
                f"class {vocabulary.names[min(missing)]!r} has no words to compare with. Give it some "
                "(background='words'), or leave it out."
            )
        encoder = TextEncoder(load_tower(**self._source), self._templates, EmbeddingCache())
        text = encoder((*vocabulary.prompts, *self._background_words)).clone()
        return dict(vocabulary=vocabulary, text=text[: len(vocabulary.prompts)], rest=text[len(vocabulary.prompts) :])

    def _take(self, encoded: dict):
        vocabulary = self.vocabulary = encoded["vocabulary"]
        hidden = torch.tensor([name in self._unseen for name in vocabulary.names])
        rest = encoded["rest"] if self.policy == "words" else None
        self.set_words(encoded["text"], torch.tensor(vocabulary.prompt_to_class), len(vocabulary), hidden, rest)


def background_policy(background: str | Sequence[str] | None) -> tuple[str | None, tuple[str, ...]]:
    """(policy of ``WordScores``, prompts) from None, ``zero``, ``learned``, one name or several.

    Raises:
        ValueError: an empty list of names.
    """
    if background is None or background in ("zero", "learned"):
        return background, ()
    words = Vocabulary.parse([background] if isinstance(background, str) else list(background)).prompts
    return "words", tuple(words)
