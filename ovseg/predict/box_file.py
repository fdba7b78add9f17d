"""Boxes that somebody else found, from a file.

JSON   [[x1, y1, x2, y2], …] in pixels, for every picture; or COCO's: images and annotations with bbox [x, y, w, h],
       of which crowds are left out, since they are no single things
CSV    a header with x1, y1, x2, y2, or x, y, width, height, or cx, cy, width, height; and, where there are several
       pictures, image: the end of its path (``cat.png``, or ``a/cat.png`` where several have that name)

Numbers that look like another format are refused rather than guessed; ``box_format`` says what they are.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np

from ovseg.compat.untrusted import read_json, shown, text, whole
from ovseg.pictures.errors import ImageError
from ovseg.spelling import did_you_mean

FORMATS = ("xyxy", "xywh", "cxcywh")
NORMALIZED = "-normalized"
CHOICES = (*FORMATS, *(name + NORMALIZED for name in FORMATS))
"""Corners; corner and size; center and size: in pixels, or divided by width and height of the picture."""

COLUMNS = {
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("x", "y", "width", "height"): "xywh",
    ("cx", "cy", "width", "height"): "cxcywh",
}
LARGEST = 10_000_000
EXPECTED = (
    "JSON such as [[x1, y1, x2, y2], …] or COCO's images and annotations, or CSV with the columns x1, y1, x2, y2 and, "
    "of several pictures, image"
)


class BoxError(ImageError):
    """A picture that its boxes do not fit."""


class BoxRows(NamedTuple):
    """What a file holds.

    format  of its boxes
    boxes   by the name of the picture; None: for every picture
    sizes   (H, W) of pictures, by name, where the file tells
    """

    format: str
    boxes: dict[str | None, list[Sequence[float]]]
    sizes: dict[str, tuple[int, int]]


class BoxFile:
    """The boxes of a file, by picture.

    Args:
        path: a ``.json`` or ``.csv`` file.
        pictures: all that boxes will be asked for: paths or addresses.
        box_format: one of ``CHOICES``, whatever the file seems to hold; None for what its layout says.

    Attributes:
        unnamed: those of the pictures that the file does not name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without boxes in one of the layouts above; numbers that are none or look like another format;
            names that several pictures share, or that no picture has.
    """

    def __init__(self, path: str | Path, pictures: Iterable[Any], box_format: str | None = None):
        self.path, pictures = Path(path), list(pictures)
        chosen = None if box_format is None else _choice(box_format)
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file of boxes {path}. Give a .json or .csv file.")
        try:
            content = _read_csv(self.path) if self.path.suffix.lower() == ".csv" else _read_coco_or_list(self.path)
        except (ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} holds no boxes that can be read: {what}. Expected {EXPECTED}.") from error
        self.format, self._sizes = chosen or content.format, content.sizes
        self._boxes = {name: np.array(boxes, np.float64).reshape(-1, 4) for name, boxes in content.boxes.items()}
        self._check(chosen)
        self._name = {} if None in self._boxes else self._match(pictures)
        self.unnamed = [] if None in self._boxes else [each for each in pictures if str(each) not in self._name]

    def of(self, picture: Any, size: tuple[int, int]) -> np.ndarray:
        """Boxes (R, 4) x1, y1, x2, y2 in pixels of a picture; none if the file does not name it.

        Args:
            picture: one of ``pictures``.
            size: (H, W) as it is seen, turned by its EXIF orientation.

        Raises:
            BoxError: the file tells of another size.
        """
        name = None if None in self._boxes else self._name.get(str(picture), "")
        expected = self._sizes.get(name, size)
        if expected != tuple(size):
            turned = " It is turned by its EXIF orientation, and these boxes were drawn before." * (
                expected == tuple(size)[::-1]
            )
            raise BoxError(
                f"{picture} has {size[1]} x {size[0]} pixels, but {self.path} tells of {expected[1]} x {expected[0]}."
                f"{turned} Give boxes of the picture as it is seen, at its own size."
            )
        return _corners(self._boxes.get(name, np.zeros((0, 4))), self.format, size).astype(np.float32)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _check(self, chosen: str | None):
        """Refuse numbers that do not look like boxes of this format."""
        boxes = np.concatenate([*self._boxes.values(), np.zeros((0, 4))])
        say = f"or say what they are: --box-format {', '.join(CHOICES)} (box_format in Python)."
        if chosen is None and len(boxes) and boxes.min() >= 0 and boxes.max() <= 1:
            raise ValueError(
                f"all numbers in {self.path} lie between 0 and 1, so they look divided by width and height of the "
                f"picture, such as {_text(boxes[0])}; expected pixels. Multiply them, {say}"
            )
        if self.format.startswith("xyxy"):
            wrong = boxes[(boxes[:, 2:] < boxes[:, :2]).any(1)]
            what = "have x2 < x1 or y2 < y1: they are reversed, or the last two are width and height (xywh)"
        else:
            wrong = boxes[(boxes[:, 2:] < 0).any(1)]
            what = "have a negative width or height"
        if len(wrong):
            raise ValueError(
                f"{len(wrong)} of {len(boxes)} boxes in {self.path}, read as {self.format}, {what}, such as "
                f"{_text(wrong[0])}. Mend the file, {say}"
            )

    def _match(self, pictures: list) -> dict[str, str]:
        """The name in the file of each picture that it names."""
        parts = {str(picture): _parts(picture) for picture in pictures}
        by_last: dict[str, list[str]] = {}
        for picture, each in parts.items():
            by_last.setdefault(each[-1], []).append(picture)
        found: dict[str, list[str]] = {}
        for name in self._boxes:
            tail = _tail(name)
            lengths = {each: _common(tail, parts[each]) for each in by_last.get(tail[-1], [])}
            if not _is_absolute(name):  # all of it must be there; the folders above may differ for a whole path
                lengths = {each: length for each, length in lengths.items() if length == len(tail)}
            best = [each for each, length in lengths.items() if length == max(lengths.values())]
            if len(best) > 1:
                raise ValueError(
                    f"{self.path} names {name}, which may be {best[0]} or {best[1]}: write as much of the path into "
                    "the file as tells them apart."
                )
            for picture in best:
                found.setdefault(picture, []).append(name)
        for picture, names in found.items():
            lengths = [_common(_tail(name), parts[picture]) for name in names]
            best = [name for name, length in zip(names, lengths, strict=True) if length == max(lengths)]
            if len(best) > 1:
                raise ValueError(
                    f"{self.path} names {picture} in several ways: {best[0]} and {best[1]}. Write it in one, with as "
                    "much of the path as tells pictures apart."
                )
            found[picture] = best
        if not found and pictures:
            raise ValueError(
                f"{self.path} names none of the pictures: it names {', '.join(list(self._boxes)[:3]) or 'nothing'}; "
                f"the first picture is {pictures[0]}. A name in it is the end of a picture's path, such as "
                f"{_parts(pictures[0])[-1]}."
            )
        return {picture: names[0] for picture, names in found.items()}


def _read_coco_or_list(path: Path) -> BoxRows:
    content = read_json(path)
    if isinstance(content, list):
        boxes = [_box(box, f"box {index}") for index, box in enumerate(content)]
        return BoxRows("xyxy", {None: boxes}, {})
    if not isinstance(content, dict):
        raise ValueError(f"it holds {type(content).__name__}")
    names, sizes, boxes = {}, {}, {}
    for image in content["images"]:
        name = text(4096)(image["file_name"], "file_name")
        if not _tail(name) or name in boxes:
            raise ValueError(f"the file_name {name!r} is empty or stands there twice")
        names[image["id"]], boxes[name] = name, []
        if image.get("width") is not None and image.get("height") is not None:
            sizes[name] = whole(1, 2**31)(image["height"], "height"), whole(1, 2**31)(image["width"], "width")
    for index, each in enumerate(content["annotations"]):
        if not each.get("iscrowd"):
            boxes[names[each["image_id"]]].append(_box(each["bbox"], f"bbox of annotation {index}"))
    return BoxRows("xywh", boxes, sizes)


def _read_csv(path: Path) -> BoxRows:
    boxes: dict[str | None, list] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, skipinitialspace=True)
        header = [(column or "").strip() for column in table.fieldnames or ()]
        columns = next((each for each in COLUMNS if set(each) <= set(header)), None)
        if columns is None:
            raise ValueError(f"its header is {', '.join(header)!r:.200}")
        table.fieldnames = header
        for row in table:
            name = (row.get("image") or "").strip() or None
            if name is not None and not _tail(name):
                raise ValueError(f"{name!r} is no name of a picture")
            values = [float(row[column] or "nan") for column in columns]
            boxes.setdefault(name, []).append(_box(values, f"the box in line {table.line_num}"))
    if not boxes:
        raise ValueError("no row")
    if None in boxes and len(boxes) > 1:
        raise ValueError("some rows name an image and some do not")
    return BoxRows(COLUMNS[columns], boxes, {})


def _box(values: Any, where: str) -> list[float]:
    if not isinstance(values, list) or len(values) != 4:
        raise ValueError(f"{where} is {shown(values)}; a box has four numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
            raise ValueError(f"{where} holds {shown(value)}; expected numbers from {-LARGEST:,} to {LARGEST:,}")
    return values


def _choice(box_format: str) -> str:
    name = str(box_format).strip().lower().replace("_", "-")
    if name not in CHOICES:
        hint = did_you_mean(name, CHOICES)
        raise ValueError(f"there is no box format {box_format!r}. {hint}The formats are {', '.join(CHOICES)}.")
    return name


def _corners(boxes: np.ndarray, kind: str, size: tuple[int, int]) -> np.ndarray:
    """x1, y1, x2, y2 in pixels."""
    if kind.endswith(NORMALIZED):
        boxes = boxes * np.array([size[1], size[0]] * 2)
    first, second = boxes[:, :2], boxes[:, 2:]
    if kind.startswith("xyxy"):
        return boxes
    first = first - second / 2 if kind.startswith("cxcywh") else first
    return np.concatenate([first, first + second], axis=1)


def _tail(name: str) -> list[str]:
    return [part for part in str(name).replace("\\", "/").split("/") if part not in ("", ".")]


def _parts(picture: Any) -> list[str]:
    """The parts of a picture's whole path, or of its address's."""
    picture = str(picture)
    if picture.lower().startswith(("http://", "https://")):
        return _tail(unquote(urlsplit(picture).path)) or [picture]
    return _tail(str(Path(picture).expanduser().absolute()))


def _is_absolute(name: str) -> bool:
    return name.startswith(("/", "\\", "~")) or name[1:2] == ":"


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts at the end are the same."""
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count


def _text(box: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"
