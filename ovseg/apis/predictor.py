"""The object people hold: picture and words in, ``Result`` out."""

from pathlib import Path
from typing import Any

from ovseg.predict.class_maps import ImageFeatures
from ovseg.predict.pipeline import Pipeline
from ovseg.predict.segment import Segmenter
from ovseg.results.result import Result
from ovseg.text.encoder import TextEncoder
from ovseg.text.vocabulary import Vocabulary

from .base_predictor import BasePredictor, ModelWords
from .raster import RasterRun


class Predictor(BasePredictor):
    """One method on one set of weights; see ``BasePredictor``."""

    engine: Segmenter

    @property
    def pipeline(self) -> Pipeline:
        return self.engine.pipeline

    @property
    def encoder(self) -> TextEncoder:
        return self.engine.encoder

    def raster(self, path: str | Path, memory: str | int) -> RasterRun:
        """A plan for a picture that is never held whole: its windows are read at its own size and its labels are made
        strip by strip; see ``RasterRun``.  It asks for ``short_side=None`` and ``refine=[]``.

        Args:
            path: a TIFF, PNG, JPEG or JPEG 2000 file.
            memory: what the process may have in all, ``"2GB"`` or bytes.

        Raises:
            ImageError: not a readable picture, or bands and types that are none.
            ValueError: no words yet; settings that need whole pictures; a budget that is too small, with the least that
                would do; rasterio is not installed.
        """
        return RasterRun(self.engine, self._snapshot(), path, memory)

    def predict(self, features: ImageFeatures | None = None, words: Any = None) -> Result:
        """The segmentation of a picture for words.

        Args:
            features: what ``encode`` returned; the picture that this thread last set unless given.
            words: anything ``Vocabulary.parse`` takes; those of ``set_classes`` unless given.

        Raises:
            ValueError: no picture in this thread, or no words yet; features that are none.
        """
        features = self._picture(features)
        return self._answer(features, self._snapshot(words))

    def _read(self, classes: Any, progress=None) -> ModelWords:
        encoded = self.engine.read(Vocabulary.parse(classes), progress)
        return ModelWords(encoded.vocabulary, encoded)  # a single class is set against others

    def _answer(self, features: ImageFeatures, words: ModelWords) -> Result:
        vocabulary, picture = words.vocabulary, features.source
        threshold = self.pipeline.applied(vocabulary).threshold
        decoded = self.engine.decode(features, words.encoded)
        confidence = decoded.confidence  # which does not hold the labels
        result = Result(
            labels=decoded.labels.cpu().numpy(),
            scores=lambda: tuple(map_.cpu().numpy() for map_ in confidence()),
            image=picture.array,
            vocabulary=vocabulary,
            provenance=self.engine.provenance(vocabulary).of(picture.file),
            path=picture.path,
            valid=picture.valid,
        )
        if threshold > 0:
            result.labels = result.fall_back(decoded.below(threshold).cpu().numpy())
        return result
