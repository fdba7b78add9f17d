"""Boxes that somebody else found, from a file.

JSON   [[x1, y1, x2, y2], …] in pixels, for every picture; or COCO's: images and annotations with bbox [x, y, w, h],
       of which crowds are left out, since they are no single things
CSV    a header with x1, y1, x2, y2 and, where there are several pictures, image (its file name)
"""

import csv
from pathlib import Path

import numpy as np

from ovseg.compat.untrusted import read_json


class BoxFile:
    """The boxes of a file, by picture.

    Args:
        path: a ``.json`` or ``.csv`` file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without boxes in one of the layouts above.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file of boxes {path}. Give a .json or .csv file.")
        try:
            rows = self._csv() if self.path.suffix.lower() == ".csv" else self._json()
            self._of = {name: _array(boxes) for name, boxes in rows.items()}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no boxes that can be read ({type(error).__name__}: {error}). Expected JSON such as "
                "[[x1, y1, x2, y2], …] or COCO's images and annotations, or CSV with the columns x1, y1, x2, y2 and, "
                "of several pictures, image."
            ) from error

    def of(self, picture) -> np.ndarray:
        """Boxes (R, 4) x1, y1, x2, y2 of a picture, by its file name; none if the file does not name it."""
        if None in self._of:
            return self._of[None]
        return self._of.get(Path(str(picture)).name, np.zeros((0, 4), np.float32))

    def _json(self) -> dict:
        content = read_json(self.path)
        if isinstance(content, list):
            return {None: [[float(value) for value in box] for box in content]}
        names = {image["id"]: Path(image["file_name"] or "").name for image in content["images"]}
        rows: dict = {name: [] for name in names.values()}
        for each in content["annotations"]:
            if each.get("iscrowd"):
                continue
            x, y, width, height = map(float, each["bbox"])
            rows[names[each["image_id"]]].append([x, y, x + width, y + height])
        return rows

    def _csv(self) -> dict:
        rows: dict = {}
        with self.path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                name = Path(row["image"]).name if row.get("image") else None
                rows.setdefault(name, []).append([float(row[side]) for side in ("x1", "y1", "x2", "y2")])
        if not rows:
            raise ValueError("no row")
        return rows


def _array(boxes: list) -> np.ndarray:
    wrong = [box for box in boxes if len(box) != 4]
    if wrong:
        raise ValueError(f"a box has four numbers, not {len(wrong[0])}")
    return np.asarray(boxes, np.float32).reshape(-1, 4)
