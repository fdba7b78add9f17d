"""What a detection returns: boxes with names, scores and masks that can be looked at, asked, saved and read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovseg.compat.untrusted import read_json
from ovseg.files import atomic_write, json_text, write_json
from ovseg.pictures.images import unique_stems
from ovseg.text.vocabulary import Vocabulary

from . import rle, store
from .draw_boxes import draw_boxes
from .plotting import PlotMixin
from .provenance import Provenance

SUFFIX = "_detections"


@dataclass(eq=False, repr=False)
class Detections(PlotMixin):
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
        count, self.size = len(scores), tuple(int(side) for side in self.size)
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
    def method(self) -> str:
        """Name of the method."""
        return self.provenance.method

    @property
    def weights(self) -> str:
        """Name and hash of the weights."""
        return str(self.provenance.weights or "")

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Settings of the detection."""
        return self.provenance.protocol

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

    def without_masks(self) -> "Detections":
        """The same boxes alone."""
        return replace(self, masks=None)

    def above(self, score: float) -> "Detections":
        """Those of at least this score."""
        return self[self.scores >= score]

    def __getitem__(self, chosen) -> "Detections":
        """Some of them, by a slice, a boolean mask or indices; a name gives those of a class."""
        if isinstance(chosen, str):
            chosen = self.labels == self.vocabulary.index(chosen)
        indices = np.atleast_1d(np.arange(len(self))[chosen])
        masks = None if self.masks is None else [self.masks[i] for i in indices]
        return replace(
            self, boxes=self.boxes[indices], scores=self.scores[indices], labels=self.labels[indices], masks=masks
        )

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
            entry["area"] = int(self.mask(index).sum())
            entry["segmentation"] = self.masks[index]
        return entry

    def to_json(self) -> str:
        """``to_dict`` as text."""
        return json_text(self.to_dict())

    def save(self, folder: str | Path, stem: str | None = None, masks: bool = True) -> dict[str, Path]:
        """Write ``<stem>_detections.png``, the picture of ``plot``, where there is a picture, and
        ``<stem>_detections.json``; each of them whole or not at all, the JSON last.

        Args:
            folder: made if it does not exist.
            stem: beginning of the file names; that of the picture by default.
            masks: whether the PNG shows them.

        Raises:
            ValueError: a stem with a folder in it, or a folder that is a file.
        """
        folder, stem = Path(folder), unique_stems([self.path])[0] if stem is None else stem
        store.check_place(folder, stem)
        paths = {"json": folder / f"{stem}{SUFFIX}.json"}
        if self.image is not None:
            paths = {"detections": folder / f"{stem}{SUFFIX}.png"} | paths
            with atomic_write(paths["detections"]) as temporary:
                self.plot(masks).save(temporary, "PNG")
        write_json(paths["json"], self.to_dict())
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
            if data["format"] != "ovseg-detections" or data["format_version"] != 1:
                raise ValueError("another format")
            image, annotations = data["images"][0], data["annotations"]
            size, source = store.picture_size(image), image["file_name"]
            boxes = np.array([each["bbox"] for each in annotations], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            return cls(
                boxes=boxes,
                scores=np.array([each["score"] for each in annotations], np.float32),
                labels=np.array([each["category_id"] for each in annotations], np.int64),
                vocabulary=Vocabulary.from_dict(data["vocabulary"]),
                size=size,
                masks=[each["segmentation"] for each in annotations]
                if all("segmentation" in e for e in annotations)
                else None,
                image=store.load_pixels(source and Path(source), path.parent, size, data.get("protocol", {})),
                provenance=Provenance.from_dict(data),
                path=source,
            )
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{path} is not a file of detections that ovseg saved, or it was changed by hand: {what}. Give the "
                "_detections.json that Detections.save wrote."
            ) from error

    def _run_lengths(self, mask: Any) -> dict:
        if not isinstance(mask, Mapping):
            mask = rle.encode(_to_numpy(mask))
        if tuple(mask["size"]) != self.size:
            raise ValueError(f"masks must have the size {self.size} of the picture, got {tuple(mask['size'])}.")
        return dict(mask)


def _to_numpy(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
