"""Words in the place of a classifier's weights: what last layers of heads and detectors share.

s_k = exp(θ)·max over the words t of class k of cos(f, t)      classes that training must not see: −∞ while it trains
s_b = 0 (the zero vector) | exp(θ)·cos(f, b), b learned | exp(θ)·max over words of background          one column behind
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.argmax.best_word import best_word
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import load_tower

LARGEST_SCALE = 100.0
NO_CLASS = -1e4  # a logit that is none to a sigmoid: with −inf its loss would be NaN


def cosine_logits(features: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    """scale·cos of features (R, E) and text (T, E), which need not be unit vectors: (R, T), always in float32."""
    with torch.autocast(features.device.type, enabled=False):
        return scale * (F.normalize(features.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T)


class WordScores(nn.Module):
    """Scaled cosines of features to whatever words it is given; none of the words is stored in checkpoints.

    Args:
        embed_dim: E.
        scale: exp(θ) at first.
        learned: whether θ trains; exp(θ) ends at 100.
        background: None (no column), ``zero``, ``learned``, or ``words``.

    Attributes:
        text (T, E), query_class (T,): the words and their classes; ``background_text`` (T', E) those of background;
            ``hidden`` (K,) classes that training must not see, or None.
        policy: ``background``.
    """

    def __init__(self, embed_dim: int, scale: float = 1 / 0.07, learned: bool = True, background: str | None = None):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learned)
        self.policy = background
        if background == "learned":
            self.background_vector = nn.Parameter(torch.empty(1, embed_dim))
            nn.init.xavier_uniform_(self.background_vector)
        for name in ("text", "query_class", "hidden", "background_text"):
            self.register_buffer(name, None, persistent=False)
        self.classes = 0

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def set_words(
        self,
        text: Tensor,
        query_class: Tensor,
        classes: int,
        hidden: Tensor | None = None,
        background: Tensor | None = None,
    ):
        """Take unit embeddings (T, E) of words with their classes (T,) of K ``classes`` from now on."""
        device = text.device if self.text is None else self.text.device
        self.text, self.query_class, self.classes = text.to(device), query_class.to(device), classes
        self.hidden = None if hidden is None or not hidden.any() else hidden.to(device)
        self.background_text = None if background is None else background.to(device)

    def by_class(self, words: Tensor) -> Tensor:
        """Scores (R, K) of classes from those of words (R, T)."""
        return best_word(words[:, :, None, None], self.query_class, self.classes)[:, :, 0, 0]

    def forward(self, features: Tensor, scale: float | None = None) -> Tensor:
        """Logits (R, K), or (R, K + 1) with background last, of features (R, E); ``scale`` in the place of exp(θ)."""
        scale = self.scale if scale is None else scale
        logits = self.by_class(cosine_logits(features, self.text, scale))
        if self.training and self.hidden is not None:
            logits = logits.masked_fill(self.hidden, NO_CLASS if self.policy is None else -torch.inf)
        if self.policy is None:
            return logits
        if self.policy == "zero":
            return F.pad(logits, (0, 1))
        vectors = self.background_vector if self.policy == "learned" else self.background_text
        return torch.cat([logits, cosine_logits(features, vectors, scale).amax(1, keepdim=True)], 1)


class NamedWords(WordScores):
    """``WordScores`` that encodes names itself; the tower is loaded for that each time (embeddings are cached on disk).

    Args:
        vocabulary: the classes with their words, anything ``Vocabulary.parse`` takes.
        weights: whose text tower encodes them, see ``ovseg.towers.weights``.
        templates: prompts averaged for each word, see ``ovseg.text.templates``.
        background: None, ``zero``, ``learned``, or words: a string, or several.
        unseen: names that training must not see; they are looked for in what ``set_classes`` is given, too.
        scale, learned: see ``WordScores``.
        arch, quick_gelu: for weight files that do not say.

    Raises:
        ValueError: weights without text, or a class without words.
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
        self._source = dict(weights=weights, arch=arch, quick_gelu=quick_gelu)
        self._templates, self._unseen = templates, tuple(unseen)
        encoded = self._read(Vocabulary.parse(vocabulary))
        super().__init__(encoded["text"].shape[1], scale, learned, policy)
        self._take(encoded)

    def set_classes(self, vocabulary):
        """Take other classes from now on.

        Raises:
            ValueError: a class without words, or words that the text tower cannot read.
        """
        self._take(self._read(Vocabulary.parse(vocabulary)))

    def _read(self, vocabulary: Vocabulary) -> dict:
        missing = set(range(len(vocabulary))) - set(vocabulary.query_class)
        if missing:
            raise ValueError(
                f"class {vocabulary.names[min(missing)]!r} has no words, and this layer scores words. Give it words "
                "(background='words'), or leave it out."
            )
        encoder = TextEncoder(load_tower(**self._source), self._templates, EmbeddingCache())
        text = encoder((*vocabulary.queries, *self._background_words)).clone()
        return dict(vocabulary=vocabulary, text=text[: len(vocabulary.queries)], rest=text[len(vocabulary.queries) :])

    def _take(self, encoded: dict):
        vocabulary = self.vocabulary = encoded["vocabulary"]
        hidden = torch.tensor([name in self._unseen for name in vocabulary.names])
        rest = encoded["rest"] if self.policy == "words" else None
        self.set_words(encoded["text"], torch.tensor(vocabulary.query_class), len(vocabulary), hidden, rest)


def background_policy(background: str | Sequence[str] | None) -> tuple[str | None, tuple[str, ...]]:
    """(policy of ``WordScores``, words) from None, ``zero``, ``learned``, a word or words.

    Raises:
        ValueError: no words in the place of words.
    """
    if background is None or background in ("zero", "learned"):
        return background, ()
    words = Vocabulary.parse([background] if isinstance(background, str) else list(background)).queries
    return "words", tuple(words)
