"""The engine of label maps: words and pictures apart, nothing kept in between."""

import warnings
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ovseg.results.provenance import Provenance
from ovseg.text.cache import EmbeddingCache
from ovseg.text.contrast import contrasted, idle_threshold
from ovseg.text.encoder import TextEncoder
from ovseg.text.vocabulary import Vocabulary

from .class_maps import ImageFeatures
from .decoded import Decoded
from .pipeline import Pipeline


class EncodedWords(NamedTuple):
    """A vocabulary, and unit embeddings (T, E) of its words."""

    vocabulary: Vocabulary
    text: Tensor


class Segmenter:
    """An engine of ``ovseg.apis.Predictor``: ``read`` words, ``encode`` a picture, ``decode`` both.

    Args:
        pipeline: tower, extractor, scorer, protocol.
        cache: keep text embeddings on disk.
    """

    boxes = False

    def __init__(self, pipeline: Pipeline, cache: bool = True):
        self.pipeline = pipeline
        self.encoder = TextEncoder(pipeline.tower, pipeline.protocol.templates, EmbeddingCache() if cache else None)

    @property
    def method(self) -> str:
        return self.pipeline.method

    def read(self, vocabulary: Vocabulary, progress=None) -> EncodedWords:
        """Encode a vocabulary; ``progress(done)`` is called meanwhile. A single class is set against names of stuff,
        see ``text.contrast``: predict with the vocabulary that is returned.

        Raises:
            ValueError: prompts too long for the text tower.
        Warns:
            UserWarning: a single class, or a threshold that cannot act.
        """
        vocabulary, note = contrasted(vocabulary, self.pipeline.tower.card.words)
        if not self.pipeline.scorer.probabilities:
            idle = idle_threshold(vocabulary, self.pipeline.applied(vocabulary).threshold)
            note = " ".join(filter(None, (note, idle)))
        text = self.encoder(vocabulary.prompts, progress)
        if note:
            warnings.warn(note, UserWarning, stacklevel=3)
        return EncodedWords(vocabulary, text)

    def encode(self, image: np.ndarray) -> ImageFeatures:
        """Run the tower over one uint8 RGB picture (H, W, 3)."""
        return self.pipeline.encode(image)

    def decode(self, encoded: ImageFeatures, words: EncodedWords) -> Decoded:
        """The label map before any threshold, see ``Pipeline.decode``, of what ``encode`` and ``read`` returned."""
        vocabulary, text = words
        background = vocabulary.background.kind != "none"
        return self.pipeline.decode(encoded, text, vocabulary.prompt_to_class, background)

    def provenance(self, vocabulary: Vocabulary | None) -> Provenance:
        """What its label maps are made with, whatever the picture."""
        return self.pipeline.provenance(vocabulary)
