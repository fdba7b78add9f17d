"""Training-free phrase localization as an MMEngine model: the same search as ``ovseg.apis.Locator``."""

import numpy as np
from mmengine.model import BaseDataPreprocessor, BaseModel

from ovseg.phrases import PhraseSearch
from ovseg.phrases.phrase_search import SETTINGS
from ovseg.predict.build import choose_tower, search_provenance
from ovseg.registry import MODELS, did_you_mean
from ovseg.results.provenance import Provenance
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import Tower


@MODELS.register_module()
class PhraseLocalizer(BaseModel):
    """Tower + ``PhraseSearch``, assembled from a config. Scored by ``PhraseMetric``.

    Images are expected as loaded (uint8, BGR, native size): resizing and normalization belong to the method.

    Args:
        weights: see ``ovseg.towers.weights``, or a tower; None is the embedded demo model.
        vocabulary: the vocabulary of the phrases of a dataset, anything ``Vocabulary.parse`` takes; its
            hash is saved with every score. None: free phrases.
        published: published settings for a benchmark: ``alpha``, ``temperature``, ``upsample``, ``start_block``,
            ``counts``, ``size`` of ``PhraseSearch``.
        protocol: settings that override all others.
        arch, quick_gelu: for weight files that do not record them.

    Raises:
        ValueError: unknown settings, words or weights, a tower that is not a ViT with a class token.
    """

    name = "adapting_clip"
    metric = "PhraseMetric"

    def __init__(
        self,
        weights: str | Tower | None = None,
        vocabulary=None,
        published: dict | None = None,
        protocol: dict | None = None,
        arch: str | None = None,
        quick_gelu: bool | None = None,
    ):
        super().__init__(data_preprocessor=BaseDataPreprocessor())
        settings = {**(published or {}), **(protocol or {})}
        for name in settings:
            if name not in SETTINGS:
                raise ValueError(
                    f"unknown setting {name!r} of the phrase search. {did_you_mean(name, SETTINGS)}There are: "
                    f"{', '.join(SETTINGS)}."
                )
        self.search = PhraseSearch(choose_tower(weights, arch=arch, quick_gelu=quick_gelu), **settings)
        self.vocabulary = None if vocabulary is None else Vocabulary.parse(vocabulary)

    @property
    def provenance(self) -> Provenance:
        """What predictions are made with."""
        return search_provenance(self.search, None if self.vocabulary is None else self.vocabulary.hash)

    def forward(self, inputs, data_samples=None, mode: str = "predict"):
        """``predict``, the only mode.

        Raises:
            RuntimeError: another mode.
        """
        if mode != "predict":
            raise RuntimeError(f"{self.search.paper} is training-free: there is no mode {mode!r}; use ovseg test.")
        return self.predict(inputs, data_samples)

    def predict(self, inputs, data_samples):
        """Each phrase of the samples gets ``box`` (x1, y1, x2, y2) in pixels, ``score`` and ``heat`` (H, W) in [0, 1].

        Args:
            inputs: list of (3, H, W) uint8 BGR images.
            data_samples: one ``BaseDataElement`` each, whose ``phrases`` are mappings with ``phrase``; their other
                keys are kept.

        Raises:
            ValueError: a sample without ``phrases``, or a phrase that is blank or too long.
        """
        for picture, sample in zip(inputs, data_samples, strict=True):
            if "phrases" not in sample:
                raise ValueError(
                    f"PhraseLocalizer looks for the phrases of a picture, and {sample.get('img_path', 'this sample')} "
                    "comes with none: take a dataset such as ovseg.ScenePhrases or ovseg.COCOMiniPhrases, whose "
                    "samples have phrases=[dict(phrase=..., truth=...)]."
                )
            if sample.phrases:
                rgb = np.ascontiguousarray(picture.flip(0).permute(1, 2, 0).cpu().numpy())
                matches = self.search.find(self.search.encode(rgb), [each["phrase"] for each in sample.phrases])
                sample.phrases = [
                    each | dict(box=match.box, score=match.score, heat=match.heatmap)
                    for each, match in zip(sample.phrases, matches, strict=True)
                ]
            sample.set_metainfo({"provenance": self.provenance})
        return data_samples
