"""Words to boxes: picture and words in, ``Detections`` out."""

from dataclasses import replace
from typing import Any

from ovseg.predict.name_boxes import BoxNamer
from ovseg.predict.protocol import digest
from ovseg.predict.user_regions import user_regions, user_tensor
from ovseg.results.detections import Detections

from .base_predictor import BasePredictor, ModelWords


class Detector(BasePredictor):
    """One detector on one set of weights; see ``BasePredictor``."""

    task = "detect"

    def predict(
        self, features: Any = None, words: Any = None, *, boxes: Any = None, masks: Any = None, objectness: Any = None
    ) -> Detections:
        """What a picture shows of words.

        Args:
            features: what ``encode`` returned; the picture that this thread last set unless given.
            words: anything ``Vocabulary.parse`` takes; those of ``set_classes`` unless given.
            boxes: (R, 4) x1, y1, x2, y2 in pixels to choose from, in place of regions found in the score maps.
            masks: (R, H, W) booleans, likewise.
            objectness: (R,) in [0, 1] of the given boxes or masks.

        Raises:
            ValueError: no picture in this thread, or no words yet; features that are none; both boxes and masks, or
                other shapes.
        """
        regions = user_regions(boxes=boxes, masks=masks, objectness=objectness)
        features = self._picture(features)
        return self._answer(features, self._snapshot(words), **regions)

    def _answer(self, features: Any, words: ModelWords, **regions: Any) -> Detections:
        detected = self.engine.decode(features, words.encoded, **regions)
        provenance = self.engine.provenance(words.vocabulary)
        origin = "given" if {"boxes", "masks"} & regions.keys() else "found"
        protocol, fingerprint = dict(provenance.protocol, regions=origin), provenance.fingerprint
        if origin == "given":
            fingerprint = digest({"fingerprint": fingerprint, "regions": origin})
        picture = features.source
        return Detections(
            **detected._asdict(),
            vocabulary=words.vocabulary,
            size=picture.array.shape[:2],
            image=picture.array,
            provenance=replace(provenance, protocol=protocol, fingerprint=fingerprint, picture=picture.file),
            path=picture.path,
        )

    def name_boxes(self, image: Any, boxes: Any, namer: BoxNamer, most: int = 5) -> list[dict[str, Any]]:
        """What given boxes of a picture hold: for each its ``box`` and up to ``most`` ``names`` with their scores.

        Args:
            image: see ``encode``.
            boxes: (R, 4) x1, y1, x2, y2 in pixels.
            namer: how regions are read.
            most: names of a box, the best first.

        Raises:
            ValueError: no words yet.
            ImageError: not a readable picture.
        """
        vocabulary, words = self._snapshot()
        boxes = user_tensor("boxes", boxes).float()
        best = namer(self.encode(image), words, boxes).topk(min(most, len(vocabulary)), dim=1)
        return [
            {
                "box": [round(value, 2) for value in box],
                "names": {vocabulary.names[k]: round(score, 4) for k, score in zip(ids, scores, strict=True)},
            }
            for box, ids, scores in zip(boxes.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
        ]
