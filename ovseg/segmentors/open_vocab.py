"""Training-free open-vocabulary segmentation as an MMSegmentation model: the same pipeline as ``ovseg.load``."""

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor

from ovseg.predict.build import assemble
from ovseg.registry import MODELS
from ovseg.results.provenance import Provenance
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import Tower


@MODELS.register_module()
class OpenVocabSegmentor(BaseSegmentor):
    """Tower + dense extractor + words + scorer + refiners, assembled from a config.

    Pictures come as the loader gives them (uint8, BGR, native size): resizing, windows and normalization are part of
    the protocol, so the dataset pipeline has none of them.

    Args:
        vocabulary: the words, anything ``Vocabulary.parse`` takes; class ids are label ids.
        dense, weights, published, scorer, arch, quick_gelu: see ``ovseg.predict.build.assemble``; ``weights`` may be a
            tower.
        protocol: settings that override all others, those of the weights too.

    Raises:
        ValueError: unknown settings, words or weights.
    """

    metric = "OpenVocabIoU"
    options_in_weights = True

    def __init__(
        self,
        dense: dict,
        vocabulary,
        weights: str | Tower | None = None,
        published: dict | None = None,
        protocol: dict | None = None,
        scorer: dict | None = None,
        arch: str | None = None,
        quick_gelu: bool | None = None,
    ):
        super().__init__(data_preprocessor=BaseDataPreprocessor())
        self.pipeline = assemble(
            dense,
            weights,
            published=published,
            settings=protocol,
            scorer=scorer,
            arch=arch,
            quick_gelu=quick_gelu,
            options_in_weights=self.options_in_weights,
        )
        if self.pipeline.protocol.range or self.pipeline.protocol.bands:
            raise ValueError(
                "range and bands say how files are read, which the dataset pipeline of a config does: leave them out "
                "of the protocol, and scale or choose bands there."
            )
        self.vocabulary = Vocabulary.parse(vocabulary)
        self.cache = EmbeddingCache()
        self._text = None

    def encoder(self) -> TextEncoder:
        """The text side, with the protocol's templates."""
        return TextEncoder(self.pipeline.tower, self.pipeline.protocol.templates, self.cache)

    def _words(self, candidates=None):
        """Word embeddings (T, E) and their classes, restricted to ``candidates`` where given."""
        if self._text is None:
            self._text = self.encoder()(self.vocabulary.prompts)
        classes = self.vocabulary.prompt_to_class
        if candidates is None:
            return self._text, classes
        allowed = set(candidates)
        keep = [i for i, c in enumerate(classes) if c in allowed]
        return self._text[keep], [classes[i] for i in keep]

    @property
    def provenance(self) -> Provenance:
        """What predictions are made with."""
        return self.pipeline.provenance(self.vocabulary)

    def predict(self, inputs, data_samples=None):
        """Label maps as ``pred_sem_seg`` (1, H, W).

        Args:
            inputs: list of (3, H, W) uint8 BGR pictures.
            data_samples: one ``SegDataSample`` each; metainfo ``candidates`` restricts a picture's classes.
        """
        background = self.vocabulary.background.kind != "none"
        threshold = self.vocabulary.background.threshold
        threshold = self.pipeline.protocol.threshold if threshold is None else threshold
        for encoded, sample in zip(self.extract_feat(inputs), data_samples, strict=True):
            text, classes = self._words(sample.metainfo.get("candidates"))
            decoded = self.pipeline.decode(encoded, text, classes, background)
            labels = decoded.labels
            if background and threshold > 0:
                labels = torch.where(decoded.below(threshold), 0, labels)
            sample.set_data({"pred_sem_seg": PixelData(data=labels[None])})
            sample.set_metainfo({"provenance": self.provenance})
        return data_samples

    def extract_feat(self, inputs):
        """Kept features of each picture, see ``Pipeline.encode``."""
        return self.pipeline.encode_all(
            [np.ascontiguousarray(x.flip(0).permute(1, 2, 0).cpu().numpy()) for x in inputs]
        )

    def encode_decode(self, inputs, batch_data_samples):
        return self.predict(inputs, batch_data_samples)

    def _forward(self, inputs, data_samples=None):
        return self.extract_feat(inputs)

    def loss(self, inputs, data_samples):
        raise RuntimeError(f"{self.pipeline.dense.paper} is training-free: there is no loss; use ovseg test.")
