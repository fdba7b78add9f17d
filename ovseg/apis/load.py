"""From the name of a method to a ready object: ``load`` and ``load_detector``."""

from typing import Any, Literal, overload

from ovseg.predict.build import build
from ovseg.towers import Tower

from .detector import Detector
from .predictor import Predictor

TrainedDetectorName = Literal["edadet", "fvit", "regionclip"]
"""For type checkers alone: the registry says which models load as detectors."""


@overload
def load(
    method: TrainedDetectorName,
    weights: str | None = None,
    classes: Any = None,
    **options: Any,
) -> Detector: ...


@overload
def load(
    method: str | dict = "naclip",
    weights: str | None = None,
    classes: Any = None,
    *,
    device: str = "auto",
    arch: str | None = None,
    quick_gelu: bool | None = None,
    dtype: Any = None,
    tower: Tower | None = None,
    scorer: dict | None = None,
    cache: bool = True,
    compile: bool = False,
    **settings: Any,
) -> Predictor: ...


def load(
    method: str | dict = "naclip",
    weights: str | None = None,
    classes: Any = None,
    *,
    device: str = "auto",
    arch: str | None = None,
    quick_gelu: bool | None = None,
    dtype: Any = None,
    tower: Tower | None = None,
    scorer: dict | None = None,
    cache: bool = True,
    compile: bool = False,
    **settings: Any,
) -> Predictor | Detector:
    """A ready predictor.

    Args:
        method: a name from ``list_methods()``, or a config ``dict(type="NACLIP", sigma=3.0)``. The name of a trained
            detector gives a ``Detector``, see ``load_detector``.
        weights: see ``ovseg.towers.weights``; None is the embedded demo model.
        classes: anything ``Vocabulary.parse`` takes; may also be set later.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        arch, quick_gelu: for weight files that do not say; see ``ovseg.towers.load_tower``.
        dtype: what the tower and the extractor compute in, ``float32``, ``bfloat16`` or ``float16``; the ``precision``
            of the protocol unless given.
        tower: a loaded tower instead of ``weights``.
        scorer: config of the scorer, ``dict(type="DenoisedScore", key_smoothing=1.0)`` for example; the method's own
            unless given.
        cache: keep text embeddings on disk.
        compile: compile the tower and the extractor with ``torch.compile``.
        **settings: changes to the method's published ``Protocol`` (``window=None``, ``short_side=512``, ``refine=[]``,
        …).

    Raises:
        ValueError: an unknown method, setting, device or weights; options that the method has no use for.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """
    options = dict(arch=arch, quick_gelu=quick_gelu, dtype=dtype, scorer=scorer, compile=compile)
    engine = build(method, weights, device=device, tower=tower, cache=cache, settings=settings, **options)
    return _ready(Detector(engine) if engine.boxes else Predictor(engine), classes)


def load_detector(
    method: str | dict = "clip_surgery",
    weights: str | None = None,
    classes: Any = None,
    *,
    device: str = "auto",
    arch: str | None = None,
    quick_gelu: bool | None = None,
    dtype: Any = None,
    tower: Tower | None = None,
    scorer: dict | None = None,
    cache: bool = True,
    compile: bool = False,
    **settings: Any,
) -> Detector:
    """A ready detector.

    Args:
        method: an extractor, a name from ``list_methods()`` or a config as for ``ovseg.load``, read without training;
            or a trained detector (``fvit``, …: `ovseg methods`) with a checkpoint of ``ovseg train`` as ``weights``,
            which holds the rest.
        weights: see ``ovseg.towers.weights``; None is the embedded demo model.
        classes: anything ``Vocabulary.parse`` takes; may also be set later.
        device, arch, quick_gelu, dtype, tower, cache, compile: see ``load``.
        scorer: config of the scorer of the maps; the method's own unless given.
        **settings: of ``BoxSettings`` (``score_threshold``, ``background``, ``nms``, …) and of the method's
            ``Protocol`` (``short_side``, ``window``, ``templates``, …); of a trained detector its ``nms``, ``inside``,
            ``score_threshold``, ``max_detections``, and changes to its config (``vlm=False``); of any detector
            ``slice=640, overlap=0.2`` to run it on overlapping slices of pictures, see ``predict.slices``.

    Raises:
        ValueError: an unknown method, setting, device or weights; options that the method has no use for.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """
    options = dict(arch=arch, quick_gelu=quick_gelu, dtype=dtype, scorer=scorer, compile=compile)
    engine = build(method, weights, boxes=True, device=device, tower=tower, cache=cache, settings=settings, **options)
    return _ready(Detector(engine), classes)


def _ready(model, classes: Any):
    return model if classes is None else model.set_classes(classes)
