"""One picture, all methods side by side: what they see, how far they agree, what they cost."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ovseg.compat.notice import say_once
from ovseg.pictures.images import LoadedImage, load_image
from ovseg.predict.build import assemble, choose_tower, dense_config, make_protocol, method_config, refiner_configs
from ovseg.predict.protocol import Protocol
from ovseg.predict.segment import Segmenter
from ovseg.registry import DENSE, component_name
from ovseg.results.plotting import PlotMixin
from ovseg.results.provenance import tower_weights
from ovseg.text.contrast import contrasted
from ovseg.text.vocabulary import Vocabulary
from ovseg.threads import Turns
from ovseg.towers import Tower
from ovseg.towers.shared import SharedTower, now

from .comparison import ComparisonValues, MethodResult
from .draw_compare import page, sheet
from .measure import PeakMemory
from .methods import list_methods
from .predictor import Predictor

PIXELS = ("short_side", "max_long_side", "size", "window", "stride", "window_batch", "normalization")
"""Settings of a protocol that say which pixels the tower sees; in a comparison they are the same for all methods."""

MENDABLE = (ValueError, KeyError, OSError, ImportError, RuntimeError, MemoryError)
"""Why a method cannot take part: a tower it cannot read, a file or package it needs, memory."""


class Comparison(ComparisonValues, PlotMixin):
    """M methods on one picture, to look at; the numbers are those of ``ComparisonValues``."""

    def plot(self) -> Image.Image:
        """All overlays and the agreement map in one picture, under one legend."""
        return sheet(self)

    def to_html(self, title: str = "picture") -> str:
        """One page that needs no other file: overlays, agreement, times and memory."""
        return page(self, title)


class Comparer:
    """Methods on one set of weights, ready for any number of pictures.

    Args:
        classes: the words, anything ``Vocabulary.parse`` takes.
        methods: ``"all"`` for those that need no file besides the weights, or names and configs.
        weights, device, arch, quick_gelu, dtype, tower: as for ``ovseg.load``.
        own_protocol: keep each method's published settings, also sizes and windows that the weights would have
            otherwise.  By default all methods see the same pixels (``PIXELS``): those that suit the weights, or the
            defaults of ``Protocol``; temperature, prompts and refiners stay each method's own.
        **settings: changes to everybody's ``Protocol``: ``short_side=448``, ``refine=[]``, ….

    Raises:
        ValueError: an unknown method, setting, device or weights; no words.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """

    def __init__(
        self,
        classes: Any,
        methods: str | Sequence[str | dict] = "all",
        weights: str | None = None,
        *,
        device: str = "auto",
        arch: str | None = None,
        quick_gelu: bool | None = None,
        dtype: Any = None,
        tower: Tower | None = None,
        own_protocol: bool = False,
        **settings: Any,
    ):
        self.configs = _configs(methods)
        vocabulary = Vocabulary.parse(classes)
        if "refine" in settings:
            settings["refine"] = refiner_configs(settings["refine"])
        if own_protocol:
            Protocol.from_dict(settings)  # a setting that no method can take is one mistake, not one per method
        self.weights, self.dtype = weights, dtype
        beside = tower is not None and any(DENSE.get(c["type"]).in_weights for c in self.configs.values())
        tower = choose_tower(None if beside else weights, tower, arch, quick_gelu, device)
        say_once(tower.card.notice)
        self.vocabulary, note = contrasted(vocabulary, tower.card.words)
        self.tower = SharedTower(tower)
        self.settings, self.own_protocol = settings, own_protocol
        self.common = None if own_protocol else make_protocol(_plain_pixels(), tower.card.protocol, settings)
        self._predictors: dict[str, Predictor] = {}
        self._refused: dict[str, str] = {}
        if note:
            warnings.warn(note, UserWarning, stacklevel=2)
        self._turns = Turns()

    def compare(self, image: Any, progress=None) -> Comparison:
        """All methods on one picture (path, URL, PIL, RGB numpy array, tensor).

        Times are from the pixels to the label map: words are encoded and extractors built before.  ``progress(method)``
        is called before each method.  Methods share what the tower has computed and are timed, so pictures are compared
        one after another, whichever threads they come from.

        Raises:
            ImageError: not a readable picture.
            ValueError: no method could take part.
        """
        reading = {name: self.settings[name] for name in ("range", "bands") if name in self.settings}
        loaded = image if isinstance(image, LoadedImage) else load_image(image, **reading)
        with self._turns:
            return self._compare(loaded, progress)

    def _compare(self, loaded: LoadedImage, progress=None) -> Comparison:
        tower, failed, measured = self.tower.clear(), {}, []
        how = PeakMemory(tower.device).how
        self._warm_up()
        for name, config in self.configs.items():
            if progress is not None:
                progress(name)
            try:
                predictor = self._predictor(name, config)
                tower.reader = name
                with PeakMemory(tower.device) as peak:
                    begin = now(tower.device)
                    result = predictor(loaded)
                    seconds = now(tower.device) - begin
            except MENDABLE as error:
                failed[name] = " ".join(str(error.args[0] if isinstance(error, KeyError) else error).split())
                continue
            measured.append((name, result, seconds, peak.bytes))
        works = tower.works
        tower.clear()
        if not measured:
            reasons = {why: ", ".join(name for name in failed if failed[name] == why) for why in failed.values()}
            raise ValueError(
                "none of the methods could take part. " + " ".join(f"{who}: {why}" for why, who in reasons.items())
            )
        finished = {name for name, *_ in measured}
        common = [work for work in works if len(work.readers & finished) > 1]
        entries = []
        for name, result, seconds, memory in measured:
            seconds -= sum(work.seconds for work in works if work.reader == name)  # what is left was never shared
            seconds += sum(work.seconds for work in works if work.readers & finished == {name})
            shared = sum(work.seconds for work in common if name in work.readers)
            entries.append(MethodResult(name, result, max(0.0, seconds), shared, memory))
        share, majority, pairwise = agreement([entry.result.labels for entry in entries])
        common_settings = None if self.common is None else {key: getattr(self.common, key) for key in PIXELS}
        return Comparison(
            loaded.array,
            self.vocabulary,
            tuple(entries),
            failed,
            sum(work.seconds for work in common),
            share,
            majority,
            pairwise,
            common_settings,
            tower_weights(tower.card),
            str(tower.device),
            how,
        )

    def _predictor(self, name: str, config: dict) -> Predictor:
        """The method's predictor with its words encoded, built once.

        Raises:
            ValueError: why it cannot be built, the same at every call.
        """
        if name in self._refused:
            raise ValueError(self._refused[name])
        if name not in self._predictors:
            try:
                pipeline = assemble(
                    method_config(config, self.weights),
                    tower=self.tower,
                    published={} if self.own_protocol else _plain_pixels(),
                    settings=self.settings,
                    dtype=self.dtype,
                    suit_weights=not self.own_protocol,
                )
                self._predictors[name] = Predictor(Segmenter(pipeline)).set_classes(self.vocabulary)
            except MENDABLE as error:
                self._refused[name] = str(error.args[0] if isinstance(error, KeyError) else error)
                raise
        return self._predictors[name]

    @torch.inference_mode()
    def _warm_up(self):
        """A picture of one size of the weights, so that the first method is not charged for what happens only once."""
        tower = self.tower.tower
        tower(torch.zeros(1, 3, *tower.image_size, device=tower.device, dtype=tower.dtype))


def compare(image: Any, classes: Any, methods: str | Sequence[str | dict] = "all", weights=None, **options):
    """All methods on one picture: a ``Comparison``.  Arguments and errors are those of ``Comparer``.

    For several pictures keep a ``Comparer``: it loads the weights and encodes the words once.
    """
    return Comparer(classes, methods, weights, **options).compare(image)


def agreement(labels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far M label maps (H, W) of integers agree.

    Returns:
        share (H, W) float32 of the maps that hold the commonest label of a pixel, in [1/M, 1]; that label (H, W), of
        equally common ones the smallest; (M, M) float64 share of the pixels on which two maps are equal.

    Raises:
        ValueError: no map, or maps of different shapes.
    """
    maps = [np.asarray(one) for one in labels]
    if not maps or any(one.shape != maps[0].shape or one.ndim != 2 or one.size == 0 for one in maps):
        shapes = ", ".join(str(one.shape) for one in maps) or "none"
        raise ValueError(f"agreement needs at least one label map (H, W), all of one shape; got {shapes}.")
    pairwise = np.eye(len(maps))
    majority, most = maps[0].copy(), np.zeros(maps[0].shape, dtype=np.uint16)
    for i, one in enumerate(maps):
        votes = np.zeros(one.shape, dtype=np.uint16)
        for j, other in enumerate(maps):
            same = one == other
            votes += same
            pairwise[i, j] = same.mean()
        better = (votes > most) | ((votes == most) & (one < majority))
        majority[better], most[better] = one[better], votes[better]
    return most.astype(np.float32) / np.float32(len(maps)), majority, pairwise


def _configs(methods: str | Sequence[str | dict]) -> dict[str, dict]:
    """Extractor configs by the name shown; a config is shown with its options."""
    if isinstance(methods, str):
        methods = list_methods(ready=True) if methods.lower() == "all" else methods.split(",")
    configs = {}
    for method in methods:
        config = dense_config(method.strip() if isinstance(method, str) else method)
        options = "".join(f" {key}={value}" for key, value in config.items() if key != "type")
        configs.setdefault(f"{component_name(DENSE.get(config['type']))}{options}", config)
    if not configs:
        raise ValueError(f"no method to compare: say all, or some of {', '.join(list_methods())}.")
    return configs


def _plain_pixels() -> dict[str, Any]:
    plain = Protocol()
    return {name: getattr(plain, name) for name in PIXELS}
