"""What a detection returns: boxes with names, scores and masks that can be looked at, asked, saved and read back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovseg.compat.untrusted import listed, number, read_json, whole
from ovseg.files import atomic_write, json_text, write_json
from ovseg.marks import check_own, save_png
from ovseg.pictures.images import unique_stems
from ovseg.text.vocabulary import Vocabulary

from . import rle, store
from .draw_boxes import draw_boxes
from .join import join
from .plotting import PlotMixin
from .provenance import Provenance, ProvenanceMixin
from .seal import sealed

SUFFIX = "_detections"


def paths_of(folder: Path, stem: str) -> dict[str, Path]:
    """What ``Detections.save`` writes of a picture, by kind, in that order."""
    return {"detections": folder / f"{stem}{SUFFIX}.png", "json": folder / f"{stem}{SUFFIX}.json"}


def boxes_only(provenance: Provenance) -> Provenance:
    """That of the same detections without masks: other results to ``--resume``."""
    protocol, fingerprint = dict(provenance.protocol, masks=False), provenance.fingerprint
    return replace(provenance, protocol=protocol, fingerprint=fingerprint and f"{fingerprint}-boxes")


@dataclass(eq=False, repr=False)
class Detections(ProvenanceMixin, PlotMixin):
    """Things found in one picture, in falling order of their scores.

    Args:
        boxes: (R, 4) float: x1, y1, x2, y2 in pixels (edges).
        scores: (R,) in [0, 1].
        labels: (R,) class ids.
        vocabulary: names, words and colors.
        size: (H, W) of the picture.
        masks: COCO's run lengths, or (R, H, W) booleans, one per box; None where only boxes are known.
        image: (H, W, 3) uint8 RGB.
        provenance: what they were made with.
        path: file the picture came from.

    Torch tensors are taken as well and moved to numpy; the order is by score, whatever it was.

    Raises:
        ValueError: lengths or shapes that differ, ids outside the vocabulary, scores outside [0, 1].
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    vocabulary: Vocabulary
    size: tuple[int, int]
    masks: Sequence[Any] | None = None
    image: np.ndarray | None = None
    provenance: Provenance = Provenance()
    path: Path | None = None

    def __post_init__(self) -> None:
        boxes, scores, labels = (_to_numpy(each) for each in (self.boxes, self.scores, self.labels))
        height, width = (int(side) for side in self.size)
        count, self.size = len(scores), (height, width)
        lengths = {len(boxes), count, len(labels)} | ({len(self.masks)} if self.masks is not None else set())
        if lengths != {count} or (count and np.shape(boxes) != (count, 4)) or scores.ndim != 1 or labels.ndim != 1:
            raise ValueError(
                "detections are boxes (R, 4), scores (R,), labels (R,) and, where there are any, R masks; got "
                f"{np.shape(boxes)}, {scores.shape}, {labels.shape}"
                f"{'' if self.masks is None else f' and {len(self.masks)} masks'}."
            )
        if count and not (np.isfinite(boxes).all() and scores.min() >= 0 and scores.max() <= 1 + 1e-6):
            raise ValueError("boxes are finite and scores probabilities in [0, 1]; these are not.")
        if count and not 0 <= labels.min() <= labels.max() < len(self.vocabulary):
            raise ValueError(
                f"labels are ids from 0 to {len(self.vocabulary) - 1}, got {labels.min()} to {labels.max()}: they "
                "belong to another vocabulary than the one given."
            )
        if self.image is not None and np.shape(self.image) != (*self.size, 3):
            raise ValueError(f"the image of size {self.size} must be (H, W, 3), got {np.shape(self.image)}.")
        order = np.argsort(-scores, kind="stable")
        self.boxes = boxes.astype(np.float32).reshape(-1, 4)[order]
        self.scores = scores.astype(np.float32).clip(0, 1)[order]
        self.labels = labels.astype(np.int64)[order]
        self.masks = None if self.masks is None else [self._run_lengths(self.masks[i]) for i in order]
        self.path = None if self.path is None else Path(self.path)

    # --- asking ----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """Name of each detection."""
        return [self.vocabulary.names[label] for label in self.labels]

    def mask(self, index: int) -> np.ndarray:
        """(H, W) bool of one detection.

        Raises:
            ValueError: there are boxes only.
        """
        if self.masks is None:
            raise ValueError("these detections have boxes only.")
        return rle.decode(self.masks[index])

    @property
    def areas(self) -> np.ndarray:
        """(R,) float64, in pixels: of the masks where there are masks, of the boxes otherwise."""
        if self.masks is not None:
            return np.array([rle.area(mask) for mask in self.masks], np.float64)
        return np.prod(self.boxes[:, 2:].astype(np.float64) - self.boxes[:, :2], axis=1)

    # --- choosing --------------------------------------------------------------------------------------------------

    def without_masks(self) -> "Detections":
        """The same boxes alone."""
        return replace(self, masks=None, provenance=boxes_only(self.provenance))

    def above(self, score: float) -> "Detections":
        """Those of at least this score.

        Raises:
            ValueError: not a number in [0, 1].
        """
        return self[self.scores >= _share(score, "a score")]

    def __getitem__(self, chosen) -> "Detections":
        """Some of them: by a name or several names, a slice, a boolean mask (R,), or indices.

        Raises:
            ValueError: a name that no class has, a mask of another length, or another kind of choice.
            IndexError: an index beyond the last detection.
        """
        rows = np.arange(len(self))
        rows = np.atleast_1d(rows[chosen if isinstance(chosen, slice) else self._rows(chosen)])
        masks = None if self.masks is None else [self.masks[i] for i in rows.tolist()]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], masks=masks)

    def _rows(self, chosen: Any) -> np.ndarray:
        """A choice that is no slice, as a boolean mask (R,) or indices."""
        names = [chosen] if isinstance(chosen, str) else chosen
        if isinstance(names, (list, tuple, set)) and any(isinstance(name, str) for name in names):
            if not all(isinstance(name, str) for name in names):
                raise ValueError(f"detections are chosen by names or by indices, not by both: {chosen!r}.")
            return np.isin(self.labels, [self.vocabulary.index(name) for name in names])
        rows = _to_numpy(chosen)
        if rows.dtype == bool and rows.shape != (len(self),):
            raise ValueError(f"a mask over {len(self)} detections has the shape ({len(self)},), got {rows.shape}.")
        if rows.ndim > 1 or (rows.size and rows.dtype.kind not in "biu"):
            raise ValueError(
                "detections are chosen by a name, several names, a slice, a boolean mask or indices; got "
                f"{chosen!r:.100}."
            )
        return rows if rows.size else np.zeros(0, np.int64)

    def with_nms(self, iou: float, class_agnostic: bool = False) -> "Detections":
        """Those that are left after non-maximum suppression: of two boxes of a class that overlap by more than ``iou``,
        the one of the lower score goes, and its mask with it.

        Args:
            iou: intersection over union of the boxes, in [0, 1].
            class_agnostic: whether boxes of different classes suppress each other too.

        Raises:
            ValueError: not a number in [0, 1].
        """
        import torch  # reading and asking does without
        from torchvision.ops import batched_nms

        labels = np.zeros_like(self.labels) if class_agnostic else self.labels
        values = (torch.from_numpy(each) for each in (self.boxes, self.scores, labels))
        best = self[batched_nms(*values, _share(iou, "an IoU")).numpy()]
        protocol = dict(self.protocol) | {"with_nms": {"iou": float(iou), "class_agnostic": bool(class_agnostic)}}
        return replace(best, provenance=replace(self.provenance, protocol=protocol, fingerprint=""))

    @classmethod
    def merge(
        cls,
        parts: Iterable["Detections"],
        offsets: Sequence[tuple[int, int]] | None = None,
        size: tuple[int, int] | None = None,
    ) -> "Detections":
        """All detections of one picture as one value: those of several detectors, or of several parts of it.

        Nothing is suppressed; see ``with_nms``.  Vocabularies that differ are united by the names of their classes.
        What the parts were made with stays where they agree, and all of it is in ``protocol["merged"]`` otherwise.

        Args:
            parts: one or more; with masks, or all without.
            offsets: (x, y) of the top left corner of each part in the whole picture, in pixels; then there is no
                ``image``. Without them every part is of the whole picture.
            size: (H, W) of the whole picture; without it the parts just fit in.

        Raises:
            ValueError: no parts, sizes that differ without offsets, parts beyond the picture, masks for some alone.
        """
        return cls(**join(list(parts), offsets, size))

    def __repr__(self) -> str:
        items = [f"{name} {score:.2f}" for name, score in zip(self.names[:5], self.scores, strict=False)]
        more = f", {len(self) - 5} more" if len(self) > 5 else ""
        height, width = self.size
        return f"Detections({width} x {height}, {len(self)}: {', '.join(items) or 'nothing'}{more})"

    # --- looking ---------------------------------------------------------------------------------------------------

    def plot(self, masks: bool = True) -> Image.Image:
        """The picture with boxes, names, scores and, unless switched off, masks.

        Raises:
            ValueError: the picture is not at hand.
        """
        if self.image is None:
            raise ValueError("there is no picture to draw on: it was not where these detections were read from.")
        return draw_boxes(
            self.image,
            self.boxes,
            [f"{name} {score:.2f}" for name, score in zip(self.names, self.scores, strict=True)],
            masks=map(self.mask, range(len(self))) if masks and self.masks is not None else None,
            colors=[self.vocabulary.colors[label] for label in self.labels],
        )

    # --- files -----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values in the manner of COCO: ``images``, ``categories`` and ``annotations``, of which each has
        ``bbox`` [x, y, width, height] in pixels, ``category_id`` (that of the vocabulary), ``score``, ``area`` and,
        where there are masks, ``segmentation`` as compressed run lengths; and what the detections were made with."""
        height, width = self.size
        return {
            "format": "ovseg-detections",
            "format_version": 1,
            **self.provenance.to_dict(),
            "vocabulary": self.vocabulary.to_dict(),
            "vocabulary_hash": self.vocabulary.hash,
            "images": [
                {"id": 1, "file_name": None if self.path is None else str(self.path), "width": width, "height": height}
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(self.vocabulary.names)],
            "annotations": [self._annotation(i) for i in range(len(self))],
        }

    def _annotation(self, index: int) -> dict[str, Any]:
        x1, y1, x2, y2 = (float(v) for v in self.boxes[index])
        entry = {
            "id": index + 1,
            "image_id": 1,
            "category_id": int(self.labels[index]),
            "category": self.names[index],
            "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(float(self.scores[index]), 6),
            "area": round((x2 - x1) * (y2 - y1), 1),
            "iscrowd": 0,
        }
        if self.masks is not None:
            entry["area"] = rle.area(self.masks[index])
            entry["segmentation"] = self.masks[index]
        return entry

    def to_json(self) -> str:
        """``to_dict`` as text."""
        return json_text(self.to_dict())

    def save(
        self, folder: str | Path, stem: str | None = None, masks: bool = True, overwrite: bool = False
    ) -> dict[str, Path]:
        """Write ``<stem>_detections.png``, the picture of ``plot``, where there is a picture, and
        ``<stem>_detections.json``; each of them whole or not at all, the JSON last.

        Args:
            folder: made if it does not exist.
            stem: beginning of the file names; that of the picture by default.
            masks: whether the PNG shows them.
            overwrite: also replace files that ovseg did not write; its own are always replaced.

        Raises:
            ValueError: a stem with a folder in it, a folder that is a file, a file that is not ovseg's (NotOwnError).
            OSError: the disk is full, or the folder cannot be written to.
        """
        folder, stem = Path(folder).expanduser(), unique_stems([self.path])[0] if stem is None else stem
        store.check_place(folder, stem)
        paths = paths_of(folder, stem)
        if self.image is None:
            paths.pop("detections")
        check_own(paths.values(), overwrite)
        if self.image is not None:
            with atomic_write(paths["detections"]) as temporary:
                save_png(self.plot(masks), temporary)
        files = {kind: path.name for kind, path in paths.items() if kind != "json"}
        write_json(paths["json"], sealed(self.to_dict() | {"files": files}))
        return paths

    @classmethod
    def load(cls, path: str | Path) -> "Detections":
        """Read back what ``save`` wrote as JSON, with the picture if it is still where it was, in the same size.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a file of ``save``, or a damaged one.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}. Give the _detections.json that Detections.save wrote.")
        try:
            data = read_json(path)
            store.check_format(data, "ovseg-detections")
            image, rows, provenance = data["images"][0], data["annotations"], Provenance.from_dict(data)
            size, source = store.picture_size(image), image["file_name"]
            vocabulary = Vocabulary.from_dict(data["vocabulary"])
            edges = listed(number(-1e7, 1e7), 4, 4)
            boxes = np.array([edges(row["bbox"], "bbox") for row in rows], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            if (boxes[:, 2:] < boxes[:, :2]).any():
                raise ValueError("a bbox [x, y, width, height] has a negative side")
            masked, area = [row for row in rows if "segmentation" in row], whole(0, size[0] * size[1])
            if len(masked) not in (0, len(rows)):
                raise ValueError("some detections have masks and some have none")
            identity = whole(0, len(vocabulary) - 1)
            detections = cls(
                boxes=boxes,
                scores=np.array([number(0, 1)(row["score"], "score") for row in rows], np.float32),
                labels=np.array([identity(row["category_id"], "category_id") for row in rows], np.int64),
                vocabulary=vocabulary,
                size=size,
                masks=[row["segmentation"] for row in rows] if masked or not rows else None,
                image=store.load_pixels(source and Path(source), path.parent, size, provenance),
                provenance=provenance,
                path=source,
            )
            if any(rle.area(row["segmentation"]) != area(row["area"], "area") for row in masked):
                raise ValueError("the masks do not have the areas that it tells of")
            return detections
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{path} is not a file of detections that ovseg saved, or it was changed by hand: {what}. Give the "
                "_detections.json that Detections.save wrote."
            ) from error

    def _run_lengths(self, mask: Any) -> dict:
        if not isinstance(mask, Mapping):
            mask = rle.encode(_to_numpy(mask))
        rle.area(mask)  # which reads it
        if tuple(mask["size"]) != self.size:
            raise ValueError(f"masks must have the size {self.size} of the picture, got {tuple(mask['size'])}.")
        return dict(mask)


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def _share(value: Any, what: str) -> float:
    share = float(value) if isinstance(value, Real) and not isinstance(value, bool) else float("nan")
    if not 0 <= share <= 1:
        raise ValueError(f"{what} is a number from 0 to 1, got {value!r}.")
    return share
