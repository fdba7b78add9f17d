"""The object people hold: picture and words in, ``Result`` out."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ovseg.pictures.images import LoadedImage, load_image
from ovseg.predict.class_maps import Encoded
from ovseg.predict.memory import reading_of
from ovseg.predict.pipeline import Pipeline, make_protocol
from ovseg.predict.protocol import Protocol
from ovseg.registry import DENSE
from ovseg.results.result import Result
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import Tower, load_tower

from .methods import dense_config, refiner_configs, trained_detector
from .on_pictures import OnPictures
from .raster import RasterRun

if TYPE_CHECKING:
    from .detector import Detector


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """``auto`` → CUDA (under torchrun the process's own GPU), else Apple's MPS, else the CPU.

    Raises:
        ValueError: a device this machine does not have.
    """
    if str(device) != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise ValueError(
                f"device {str(device)!r} is not available here ({str(error).splitlines()[0]}). Use auto or cpu."
            ) from None
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def load(
    method: str | dict = "naclip",
    weights: str | None = None,
    classes: Any = None,
    *,
    device: str = "auto",
    arch: str | None = None,
    quick_gelu: bool | None = None,
    tower: Tower | None = None,
    scorer: dict | None = None,
    cache: bool = True,
    compile: bool = False,
    **settings: Any,
) -> "Predictor | Detector":
    """A ready predictor.

    Args:
        method: a name from ``list_methods()``, or a config ``dict(type="NACLIP", sigma=3.0)``. The name of a trained
            detector gives a ``Detector``, see ``load_detector``.
        weights: see ``ovseg.towers.weights``; None is the embedded demo model.
        classes: anything ``Vocabulary.parse`` takes; may also be set later.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        arch, quick_gelu: for weight files that do not say; see ``ovseg.towers.load_tower``.
        tower: a loaded tower instead of ``weights``.
        scorer: config of the scorer, ``dict(type="DenoisedScore", key_smoothing=1.0)`` for example; the method's own
            unless given.
        cache: keep text embeddings on disk.
        compile: compile the tower and the extractor with ``torch.compile``.
        **settings: changes to the method's published ``Protocol`` (``window=None``, ``short_side=512``, ``refine=[]``,
        …).

    Raises:
        ValueError: an unknown method, setting, device or weights.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """
    if trained_detector(method):
        from .detector import load_detector

        return load_detector(method, weights, classes, device=device, tower=tower, **settings)
    config = dense_config(method)
    extractor = DENSE.get(config["type"])
    published = extractor.protocol
    if weights is not None and Path(weights).is_file():
        config = {option: weights for option in extractor.in_weights} | config
    if tower is None:
        tower = load_tower(weights, pick_device(device), arch=arch, quick_gelu=quick_gelu)
    if "refine" in settings:
        settings["refine"] = refiner_configs(settings["refine"])
    protocol = make_protocol(published, tower.card.protocol, settings)
    pipeline = Pipeline(tower, config, protocol, scorer)
    predictor = Predictor(pipeline.compile() if compile else pipeline, config, cache)
    if classes is not None:
        predictor.set_classes(classes)
    return predictor


class Predictor(OnPictures):
    """One method on one set of weights; see ``OnPictures``."""

    def __init__(self, pipeline: Pipeline, method: dict | str, cache: bool = True):
        self.pipeline = pipeline
        self.method = method if isinstance(method, str) else method["type"].lower()
        self.encoder = TextEncoder(pipeline.tower, pipeline.protocol.templates, EmbeddingCache() if cache else None)
        self._text: Tensor | None = None
        self._image: LoadedImage | None = None
        self._encoded: Encoded | None = None
        notice = pipeline.tower.card.notice
        if notice:
            _say_once(notice)

    def set_classes(self, classes: Any, progress=None) -> "Predictor":
        vocabulary = Vocabulary.parse(classes)
        self._text = self.encoder(vocabulary.queries, progress)
        self.vocabulary = vocabulary
        return self

    @property
    def weights(self) -> str:
        """Name and hash of the weights."""
        card = self.pipeline.tower.card
        return f"{card.name} ({card.hash})"

    @property
    def applied(self) -> Protocol:
        """The protocol with the threshold of the words, where they have one."""
        threshold = None if self.vocabulary is None else self.vocabulary.background.threshold
        protocol = self.pipeline.protocol
        return protocol if threshold is None else protocol.but(threshold=threshold)

    @property
    def conditions(self) -> dict[str, str]:
        return {
            "weights": self.weights,
            "vocabulary_hash": self.vocabulary.hash,
            "fingerprint": self.applied.fingerprint,
        }

    @property
    def reading(self) -> dict[str, Any]:
        return reading_of(self.pipeline)

    def set_image(self, image: Any) -> "Predictor":
        loaded = load_image(image, **self.reading)
        self._encoded = self.pipeline.encode(loaded.array)
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
        vocabulary, applied = self.vocabulary, self.applied
        background = vocabulary.background.kind != "none"
        decoded = self.pipeline.decode(self._encoded, self._text, vocabulary.query_class, background)
        confidence = decoded.confidence  # which does not hold the labels
        result = Result(
            labels=decoded.labels.cpu().numpy(),
            scores=lambda: tuple(map_.cpu().numpy() for map_ in confidence()),
            image=self._image.array,
            vocabulary=vocabulary,
            protocol=applied.to_dict() | {"fingerprint": applied.fingerprint},
            method=self.method,
            weights=self.weights,
            path=self._image.path,
            valid=self._image.valid,
        )
        if applied.threshold > 0:
            result.labels = result.fall_back(decoded.below(applied.threshold).cpu().numpy())
        return result


_said: set[str] = set()


def _say_once(notice: str):
    if notice not in _said:
        _said.add(notice)
        print(notice, file=sys.stderr)
