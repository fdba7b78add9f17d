"""What a prediction returns: a label map that can be looked at, asked, re-thresholded, saved and read back."""

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ovseg.files import json_text
from ovseg.pictures.images import unique_stems
from ovseg.text.vocabulary import Vocabulary

from . import store
from .draw import by_area, count_labels, draw_overlay
from .plotting import PlotMixin
from .provenance import Provenance, ProvenanceMixin
from .store import FORMATS

__all__ = ["FORMATS", "Result", "unique_stems"]


@dataclass(eq=False, repr=False)
class Result(ProvenanceMixin, PlotMixin):
    """Classes of every pixel of one image.

    Args:
        labels: (H, W) class ids, or ``unlabeled``; stored as uint8 for up to 255 classes, as uint16 beyond.
        scores: (H, W) probability in [0, 1] of the winning class, also where a threshold turned it into background;
            float16 or float32. None if it was not saved.  A function that returns scores and margin is called when one
            of them is first read.
        vocabulary: names, words, colors and background policy.
        margin: (H, W) probability of the winner minus that of the runner-up, in [0, 1].
        image: (H, W, 3) uint8 RGB.
        provenance: what it was made with.
        path: file the image came from.
        winners: (H, W) best class of every pixel before any threshold; ``labels`` if left out. It is what lets
            ``rethreshold`` also move a threshold down.
        valid: (H, W) bool, false where the raster holds no data: unlabeled there whatever ``labels`` says, scores 0,
            and no part of areas; None where all pixels are valid.

    Torch tensors are taken as well and moved to numpy.

    Raises:
        ValueError: shapes that differ, ids outside the vocabulary, scores outside [0, 1].
    """

    labels: np.ndarray
    scores: np.ndarray | None
    vocabulary: Vocabulary
    margin: np.ndarray | None = field(default_factory=lambda: None)  # no class attribute: see __getattr__
    image: np.ndarray | None = None
    provenance: Provenance = Provenance()
    path: Path | None = None
    winners: np.ndarray | None = None
    valid: np.ndarray | None = None

    if TYPE_CHECKING:  # the dataclass's own, but for ``scores``: set as an array or a function, read as an array

        def __init__(
            self,
            labels: np.ndarray,
            scores: np.ndarray | Callable[[], tuple[Any, Any]] | None,
            vocabulary: Vocabulary,
            margin: np.ndarray | None = None,
            image: np.ndarray | None = None,
            provenance: Provenance = ...,
            path: Path | None = None,
            winners: np.ndarray | None = None,
            valid: np.ndarray | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if len(self.vocabulary) > 65535:
            raise ValueError(f"a result holds at most 65535 classes, the vocabulary has {len(self.vocabulary)}.")
        self.labels = self._check_ids(self.labels, "labels")
        self.winners = self.labels if self.winners is None else self._check_ids(self.winners, "winners")
        self._leave_out_invalid()
        if callable(self.scores):
            self._confidence: Callable[[], tuple[Any, Any]] = self.scores
            del self.scores, self.margin
        else:
            self.scores = self._check_probabilities(self.scores, "scores")
            self.margin = self._check_probabilities(self.margin, "margin")
        if self.image is not None and np.shape(self.image) != (*self.labels.shape, 3):
            raise ValueError(
                f"the image of a result must be (H, W, 3) with the H, W of its labels {self.labels.shape}, got "
                f"{np.shape(self.image)}."
            )
        self.path = None if self.path is None else Path(self.path)

    def __getattr__(self, name: str):
        """Scores and margin, when they are first read."""
        confidence = self.__dict__.get("_confidence")
        if name not in ("scores", "margin") or (confidence is None and name not in self.__dict__):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if confidence is not None:  # else another thread was first
            scores, margin = confidence()
            self.scores = self._check_probabilities(scores, "scores")
            self.margin = self._check_probabilities(margin, "margin")
            self.__dict__.pop("_confidence", None)
        return self.__dict__[name]

    def __getstate__(self) -> dict:  # a copy or a pickle has the numbers, not what makes them
        _ = self.scores
        return self.__dict__

    # --- asking ----------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all classes; the index is the id."""
        return self.vocabulary.names

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """(r, g, b) of all classes."""
        return self.vocabulary.colors

    @property
    def unlabeled(self) -> int:
        """Id of pixels without a class: 255 in a uint8 map, 65535 in a uint16 map."""
        return 255 if len(self.vocabulary) <= 255 else 65535

    @property
    def present(self) -> list[int]:
        """Ids of the classes that occur, largest area first."""
        return by_area(count_labels(self.labels, len(self.vocabulary)))

    @property
    def areas(self) -> dict[str, float]:
        """Share of the valid part of the image, in (0, 1], of each class that occurs, largest first. Less than 1 in sum
        if there are unlabeled pixels in it."""
        count = count_labels(self.labels, len(self.vocabulary))
        return {self.names[i]: float(count[i] / (self.labels.size - self.invalid)) for i in by_area(count)}

    @property
    def invalid(self) -> int:
        """Number of pixels that hold no data."""
        return 0 if self.valid is None else self.valid.size - int(np.count_nonzero(self.valid))

    def mask(self, name_or_id: str | int) -> np.ndarray:
        """(H, W) bool, true where the class won; all false if it did not occur.

        Raises:
            ValueError: no such class, or neither a name nor a whole number.
        """
        if isinstance(name_or_id, str):
            return self.labels == self.vocabulary.index(name_or_id)
        whole = isinstance(name_or_id, numbers.Integral) and not isinstance(name_or_id, bool)
        if not whole or not (0 <= name_or_id < len(self.vocabulary) or name_or_id == self.unlabeled):
            raise ValueError(
                f"there is no class {name_or_id!r}: give a name, or an id, a whole number from 0 to "
                f"{len(self.vocabulary) - 1}; {self.unlabeled} stands for unlabeled pixels."
            )
        return self.labels == int(name_or_id)

    def masks(self) -> dict[str, np.ndarray]:
        """Mask of each class that occurs, largest first."""
        return {self.names[i]: self.labels == i for i in self.present}

    def __repr__(self) -> str:
        areas = [f"{name} {share:.1%}" for name, share in self.areas.items()]
        listing = ", ".join(areas[:5]) + (f", {len(areas) - 5} more" if len(areas) > 5 else "")
        height, width = self.labels.shape
        of = f"{len(areas)} of {len(self.vocabulary)} classes"
        return f"Result({width} x {height}, {of}: {listing}{', method ' + self.method if self.method else ''})"

    # --- changing --------------------------------------------------------------------------------------------------

    def rethreshold(self, threshold: float) -> "Result":
        """The same prediction under another threshold; no model is run.

        Every pixel starts from its winner again; where its probability is below the threshold it becomes background
        (class 0) if the vocabulary has one, and unlabeled otherwise.

        Args:
            threshold: probability in [0, 1]; 0 gives the plain winners.

        Raises:
            ValueError: a threshold that is no number in [0, 1], or a result without scores.
        """
        number = isinstance(threshold, numbers.Real) and not isinstance(threshold, bool)
        if not number or not 0 <= threshold <= 1:
            raise ValueError(f"a threshold is a probability, a number from 0 to 1, got {threshold!r}.")
        if self.scores is None:
            raise ValueError(
                "this result has no scores to compare with a threshold: they were not saved. Predict again, or add "
                "'scores' to the formats of Result.save."
            )
        labels = self.fall_back(self.scores < threshold)
        protocol = dict(self.protocol) | {"threshold": float(threshold)}
        return replace(self, labels=labels, provenance=replace(self.provenance, protocol=protocol, fingerprint=""))

    def fall_back(self, below: np.ndarray) -> np.ndarray:
        """The winners (H, W), and what a threshold makes of pixels below it, (H, W) bool."""
        fallback = self.unlabeled if self.vocabulary.background.kind == "none" else 0
        below = below if self.valid is None else below & self.valid
        winners = self.labels if self.winners is None else self.winners
        return np.where(below, self.labels.dtype.type(fallback), winners)

    # --- looking ---------------------------------------------------------------------------------------------------

    def plot(self, alpha: float = 0.55, legend: bool = True, max_legend: int = 20) -> Image.Image:
        """The image under its classes, background untinted; arguments as for ``draw_overlay``."""
        untinted = () if self.vocabulary.background.kind == "none" else (0,)
        outside = self.invalid / self.labels.size
        how = (alpha, legend, max_legend, untinted, outside)
        return draw_overlay(self.image, self.labels, self.names, self.colors, *how)

    # --- files -----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything but pixels and scores, as plain JSON values. Per class that occurs: id, name, color, area in
        pixels and as fraction, mean score, bbox [x, y, width, height] and the mask as COCO's compressed RLE."""
        return store.to_dict(self)

    def to_json(self) -> str:
        """``to_dict`` as text."""
        return json_text(self.to_dict())

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        formats: Sequence[str] = store.DEFAULT_FORMATS,
        overwrite: bool = False,
    ) -> dict[str, Path]:
        """Write files, each of them whole or not at all.

        * ``overlay``: ``<stem>_overlay.png``, the picture of ``plot()``.
        * ``labels``: ``<stem>_labels.png``, whose pixel values are the ids: 8 bit with the class colors as palette
          for up to 255 classes, 16-bit gray beyond. Read it with Pillow; OpenCV would return colors.
        * ``scores``: ``<stem>_scores.npz`` with float16 ``scores`` and ``margin`` and with ``winners``; needed to
          ``rethreshold`` what was read back.
        * ``json``: ``<stem>.json``, ``to_dict()`` plus the names of the files above.

        Args:
            folder: made if it does not exist.
            stem: beginning of the file names; that of the image by default. ``unique_stems`` distinguishes images of
                equal name from several folders.
            formats: any of ``FORMATS``.
            overwrite: also replace files that ovseg did not write; its own are always replaced.

        Returns:
            Path of each format, in the order written.

        Raises:
            ValueError: an unknown format, a stem with a folder in it, a folder that is a file, no scores to save, a
                file that is not ovseg's (NotOwnError).
            OSError: the disk is full, or the folder cannot be written to.
        """
        return store.save_result(self, folder, stem, formats, overwrite)

    @classmethod
    def load(cls, path: str | Path) -> "Result":
        """Read back what ``save`` wrote as ``json``, with its scores if they were saved and with the image if it is
        still where it was, in the same size.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a file of ``save``, or a damaged one.
        """
        return cls(**store.load_result(path))

    # --- inside ----------------------------------------------------------------------------------------------------

    def _leave_out_invalid(self):
        """Give pixels without data their label; ``valid`` becomes None where there are none."""
        if self.valid is None:
            return
        valid = np.asarray(_to_numpy(self.valid))
        if valid.dtype != np.bool_ or valid.shape != self.labels.shape:
            raise ValueError(
                f"valid must be booleans of the shape of the labels {self.labels.shape}, got {valid.dtype} "
                f"{valid.shape}."
            )
        self.valid = None if valid.all() else valid
        if self.valid is not None:
            one, none = self.winners is self.labels, self.labels.dtype.type(self.unlabeled)
            self.labels = np.where(valid, self.labels, none)
            self.winners = self.labels if one else np.where(valid, self.winners, none)

    def _check_ids(self, values: Any, what: str) -> np.ndarray:
        ids = _to_numpy(values)
        if ids.ndim != 2 or ids.size == 0 or ids.dtype.kind not in "iu":
            raise ValueError(f"{what} must be (H, W) integers with H, W >= 1, got {ids.dtype} {ids.shape}.")
        if what == "winners" and ids.shape != self.labels.shape:
            raise ValueError(f"winners must have the shape of the labels {self.labels.shape}, got {ids.shape}.")
        total, bad = len(self.vocabulary), None
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= total:
            bad = ids[(ids < 0) | ((ids >= total) & (ids != self.unlabeled))]
        if bad is not None and bad.size:
            raise ValueError(
                f"{what} must be ids from 0 to {total - 1}, or {self.unlabeled} for unlabeled pixels, but {bad.size} "
                f"pixels hold others, such as {bad[0]}. The labels belong to another vocabulary than the one given."
            )
        return ids.astype(np.uint8 if total <= 255 else np.uint16, copy=False)

    def _check_probabilities(self, values: Any, what: str) -> np.ndarray | None:
        if values is None:
            return None
        array = _to_numpy(values)
        if array.dtype.kind != "f" or array.shape != self.labels.shape:
            raise ValueError(
                f"{what} must be floats of the shape of the labels {self.labels.shape}, got {array.dtype} "
                f"{array.shape}."
            )
        low, high = float(array.min()), float(array.max())
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # rounding may leave the range by a hair; NaN is caught here too
            raise ValueError(f"{what} must be probabilities in [0, 1], got values from {low:g} to {high:g}.")
        if low < 0 or high > 1:
            array = array.clip(0, 1)
        if self.valid is not None:
            array = np.where(self.valid, array, array.dtype.type(0))
        return array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
