"""The object people hold: picture and words in, ``Result`` out."""

from pathlib import Path
from typing import Any

from torch import Tensor

from ovseg.pictures.images import LoadedImage, load_image
from ovseg.predict.class_maps import ImageFeatures
from ovseg.predict.pipeline import Pipeline
from ovseg.predict.segment import EncodedWords, Segmenter
from ovseg.results.result import Result
from ovseg.text.encoder import TextEncoder
from ovseg.text.vocabulary import Vocabulary

from .base_predictor import BasePredictor
from .raster import RasterRun


class Predictor(BasePredictor):
    """One method on one set of weights; see ``BasePredictor``."""

    engine: Segmenter

    def __init__(self, engine: Segmenter):
        super().__init__(engine)
        self._text: Tensor | None = None
        self._image: LoadedImage | None = None
        self._encoded: ImageFeatures | None = None

    @property
    def pipeline(self) -> Pipeline:
        return self.engine.pipeline

    @property
    def encoder(self) -> TextEncoder:
        return self.engine.encoder

    def set_classes(self, classes: Any, progress=None) -> "Predictor":
        self.vocabulary, self._text = self.engine.read(Vocabulary.parse(classes), progress)
        return self

    def set_image(self, image: Any) -> "Predictor":
        loaded = load_image(image, **self.reading)
        self._encoded = self.engine.encode(loaded.array)
        self._image = loaded
        return self

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
        return RasterRun(self, path, memory)

    def predict(self) -> Result:
        """The segmentation of the picture last set, with the words last set.

        Raises:
            ValueError: no picture or no words yet.
        """
        if self._encoded is None or self.vocabulary is None or self._text is None:
            missing = "a picture: call set_image(...)" if self._encoded is None else "words: call set_classes([...])"
            raise ValueError(f"there is nothing to predict yet; first give {missing}.")
        vocabulary, threshold = self.vocabulary, self.pipeline.applied(self.vocabulary).threshold
        decoded = self.engine.decode(self._encoded, EncodedWords(vocabulary, self._text))
        confidence = decoded.confidence  # which does not hold the labels
        result = Result(
            labels=decoded.labels.cpu().numpy(),
            scores=lambda: tuple(map_.cpu().numpy() for map_ in confidence()),
            image=self._image.array,
            vocabulary=vocabulary,
            provenance=self.provenance.of(self._image.file),
            path=self._image.path,
            valid=self._image.valid,
        )
        if threshold > 0:
            result.labels = result.fall_back(decoded.below(threshold).cpu().numpy())
        return result
