"""Words to boxes: picture and words in, ``Detections`` out."""

from dataclasses import replace
from typing import Any

import torch

from ovseg.pictures.images import load_image
from ovseg.predict.name_boxes import BoxNamer
from ovseg.predict.protocol import digest
from ovseg.results.detections import Detections
from ovseg.text.vocabulary import Vocabulary

from .base_predictor import BasePredictor


class Detector(BasePredictor):
    """One detector on one set of weights; see ``BasePredictor``."""

    def __init__(self, engine: Any):
        super().__init__(engine)
        self._words = self._image = self._encoded = None

    def set_classes(self, classes: Any, progress=None) -> "Detector":
        vocabulary = Vocabulary.parse(classes)
        self._words = self.engine.read(vocabulary, progress)
        self.vocabulary = vocabulary
        return self

    def set_image(self, image: Any) -> "Detector":
        loaded = load_image(image, **self.reading)
        self._encoded = self.engine.encode(loaded.array)
        self._image = loaded
        return self

    def predict(self, boxes: Any = None, masks: Any = None, objectness: Any = None) -> Detections:
        """What the picture last set shows of the words last set.

        Args:
            boxes: (R, 4) x1, y1, x2, y2 in pixels to choose from, in place of regions found in the score maps.
            masks: (R, H, W) booleans, likewise.
            objectness: (R,) in [0, 1] of the given boxes or masks.

        Raises:
            ValueError: no picture or no words yet, both boxes and masks, or other shapes.
        """
        if self._encoded is None or self._words is None:
            missing = "a picture: call set_image(...)" if self._encoded is None else "words: call set_classes([...])"
            raise ValueError(f"there is nothing to detect yet; first give {missing}.")
        regions_of_user = {"boxes": boxes, "masks": masks, "objectness": objectness}
        regions_of_user = {name: torch.as_tensor(value) for name, value in regions_of_user.items() if value is not None}
        decoded = self.engine.decode(self._encoded, self._words, **regions_of_user)
        provenance, regions = self.provenance, "found" if boxes is None and masks is None else "given"
        protocol, fingerprint = dict(provenance.protocol, regions=regions), provenance.fingerprint
        if regions == "given":
            fingerprint = digest({"fingerprint": fingerprint, "regions": regions})
        return Detections(
            **decoded._asdict(),
            vocabulary=self.vocabulary,
            size=self._image.array.shape[:2],
            image=self._image.array,
            provenance=replace(provenance, protocol=protocol, fingerprint=fingerprint, picture=self._image.file),
            path=self._image.path,
        )

    def name_boxes(self, image: Any, boxes: Any, namer: BoxNamer, most: int = 5) -> list[dict[str, Any]]:
        """What given boxes of a picture hold: for each its ``box`` and up to ``most`` ``names`` with their scores.

        Args:
            image: see ``set_image``.
            boxes: (R, 4) x1, y1, x2, y2 in pixels.
            namer: how regions are read.
            most: names of a box, the best first.

        Raises:
            ValueError: no words yet.
            ImageError: not a readable picture.
        """
        if self._words is None:
            raise ValueError("there are no words to choose from yet; first call set_classes([...]).")
        self.set_image(image)
        boxes = torch.as_tensor(boxes).float().reshape(-1, 4)
        best = namer(self._encoded, self._words, boxes).topk(min(most, len(self.vocabulary)), dim=1)
        return [
            {
                "box": [round(value, 2) for value in box],
                "names": {self.vocabulary.names[k]: round(score, 4) for k, score in zip(ids, scores, strict=True)},
            }
            for box, ids, scores in zip(boxes.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
        ]
