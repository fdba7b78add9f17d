"""Words to boxes: picture and words in, ``Detections`` out."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ovseg.pictures.images import load_image
from ovseg.predict.box_settings import BoxSettings
from ovseg.predict.detect import DenseDetector
from ovseg.predict.memory import reading_of
from ovseg.predict.name_boxes import BoxNamer
from ovseg.predict.pipeline import Pipeline, make_protocol
from ovseg.registry import DENSE
from ovseg.results.detections import Detections
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import Tower, load_tower

from .methods import dense_config, list_methods, trained_detector
from .on_pictures import OnPictures
from .predictor import _say_once, pick_device

BOX_SETTINGS = tuple(each.name for each in fields(BoxSettings))


def load_detector(
    method: str | dict = "clipsurgery",
    weights: str | None = None,
    classes: Any = None,
    *,
    device: str = "auto",
    arch: str | None = None,
    quick_gelu: bool | None = None,
    tower: Tower | None = None,
    scorer: dict | None = None,
    cache: bool = True,
    **settings: Any,
) -> "Detector":
    """A ready detector.

    Args:
        method: an extractor, a name from ``list_methods()`` or a config as for ``ovseg.load``, read without training;
            or ``fvit``, ``regionclip``, ``edadet`` with a checkpoint of ``tools/train.py`` as ``weights``; it tells the
            rest.
        weights: see ``ovseg.towers.weights``; None is the embedded demo model.
        classes: anything ``Vocabulary.parse`` takes; may also be set later.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        arch, quick_gelu: for weight files that do not say; see ``ovseg.towers.load_tower``.
        tower: a loaded tower instead of ``weights``.
        scorer: config of the scorer of the maps; the method's own unless given.
        cache: keep text embeddings on disk.
        **settings: of ``BoxSettings`` (``score_threshold``, ``background``, ``nms``, …) and of the method's
            ``Protocol`` (``short_side``, ``window``, ``templates``, …); of a trained detector its ``nms``, ``inside``,
            ``score_threshold``, ``max_detections``, and changes to its config (``vlm=False``).

    Raises:
        ValueError: an unknown method, setting, device or weights.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """
    name = method.lower().replace("-", "_") if isinstance(method, str) else ""
    if kind := trained_detector(method):
        engine = _trained(kind, weights, device, tower, settings)
    else:
        if isinstance(method, str) and name.replace("_", "") in list_methods():
            method = name.replace("_", "")  # clip_surgery, as its folder is called
        config = dense_config(method)
        extractor = DENSE.get(config["type"])
        if weights is not None and Path(weights).is_file():
            config = {option: weights for option in extractor.in_weights} | config
        if tower is None:
            tower = load_tower(weights, pick_device(device), arch=arch, quick_gelu=quick_gelu)
        boxes, others = split_settings(settings)
        protocol = make_protocol(extractor.protocol, tower.card.protocol, {"refine": ()}, others)
        engine = DenseDetector(Pipeline(tower, config, protocol, scorer), boxes, cache)
        if tower.card.notice:
            _say_once(tower.card.notice)
    detector = Detector(engine, name or config["type"].lower())
    if classes is not None:
        detector.set_classes(classes)
    return detector


def _trained(kind: str, weights: str | None, device: str, tower: Tower | None, settings: dict):
    """The engine of a checkpoint."""
    from ovseg.engine.trained_detector import LEAVES, TrainedDetector  # imports MMDetection

    if weights is None:
        raise ValueError(
            f"{kind} is trained: weights= (--weights) names its checkpoint, such as one of tools/train.py or "
            "configs/fvit/fvit_windows_tiny_scenes.safetensors."
        )
    others = [name for name in settings if name in BOX_SETTINGS and name not in LEAVES]
    if others:
        raise ValueError(
            f"{', '.join(others)}: for detection without training alone; {kind} takes {', '.join(LEAVES)} and what its "
            "config has."
        )
    boxes = BoxSettings(**{name: settings.pop(name) for name in LEAVES if name in settings})
    return TrainedDetector(weights, kind, pick_device(device), boxes, tower, **settings)


def split_settings(settings: dict) -> tuple[BoxSettings, dict]:
    """The part that says how regions become detections, and the protocol's.

    Raises:
        ValueError: refiners, which regions have no use for, or box settings out of range.
    """
    if settings.get("refine"):
        raise ValueError("refiners work on label maps; detections have none: leave out refine.")
    boxes = {name: value for name, value in settings.items() if name in BOX_SETTINGS}
    return BoxSettings(**boxes), {name: value for name, value in settings.items() if name not in BOX_SETTINGS}


class Detector(OnPictures):
    """One detector on one set of weights; see ``OnPictures``.

    Args:
        engine: ``read(vocabulary, progress)`` → words, ``encode(picture)`` of a uint8 RGB array, ``decode(encoded,
            words, …)`` → ``Found`` (boxes, scores, labels, masks), and ``provenance(vocabulary)``; an example is
            ``ovseg.predict.detect.DenseDetector``.
        method: its name.
    """

    def __init__(self, engine: Any, method: str):
        self.engine, self.method = engine, method
        self._words = self._image = self._encoded = None

    def set_classes(self, classes: Any, progress=None) -> "Detector":
        vocabulary = Vocabulary.parse(classes)
        self._words = self.engine.read(vocabulary, progress)
        self.vocabulary = vocabulary
        return self

    @property
    def reading(self) -> dict[str, Any]:
        pipeline = getattr(self.engine, "pipeline", None)  # trained detectors have none
        return {} if pipeline is None else reading_of(pipeline)

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
        given = {"boxes": boxes, "masks": masks, "objectness": objectness}
        given = {name: torch.as_tensor(value) for name, value in given.items() if value is not None}
        found = self.engine.decode(self._encoded, self._words, **given)
        provenance = self.engine.provenance(self.vocabulary)
        regions = "found" if boxes is None and masks is None else "given"
        return Detections(
            **found._asdict(),
            vocabulary=self.vocabulary,
            size=self._image.array.shape[:2],
            image=self._image.array,
            protocol=provenance["protocol"] | {"regions": regions},
            method=self.method,
            weights=provenance["weights"],
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

    @property
    def conditions(self) -> dict[str, str]:
        told = self.engine.provenance(self.vocabulary)
        return {
            "weights": told["weights"],
            "vocabulary_hash": told["vocabulary"],
            "fingerprint": told["protocol"]["fingerprint"],
        }
