"""Results as files: a picture, an index PNG, scores, and a JSON file that has everything else."""

from __future__ import annotations

import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ovseg.compat.former_names import current_keys
from ovseg.compat.untrusted import read_json, refuse, shown, whole
from ovseg.files import atomic_write, write_json
from ovseg.marks import MARK, check_own, save_png
from ovseg.pictures.images import load_image, unique_stems
from ovseg.text.vocabulary import Vocabulary

from . import rle
from .draw import by_area, count_labels
from .provenance import Provenance
from .seal import check_seal, file_beside, sealed

FORMATS = {
    "overlay": "_overlay.png",
    "labels": "_labels.png",
    "scores": "_scores.npz",
    "json": ".json",  # last, so that it is only there when the files it names are
}
DEFAULT_FORMATS = ("overlay", "labels", "json")
_VERSION = 1
LARGEST = 2**31  # largest picture, in pixels, that a file may claim
_DAMAGE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RuntimeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


class LabelMap(Protocol):
    """What every saved label map has: a ``Result``, or a raster's."""

    vocabulary: Vocabulary
    provenance: Provenance
    path: Path | None

    @property
    def unlabeled(self) -> int: ...


class ScoredMap(LabelMap, Protocol):
    """A label map in memory: a ``Result``."""

    labels: np.ndarray
    winners: np.ndarray | None
    scores: np.ndarray | None
    margin: np.ndarray | None
    valid: np.ndarray | None

    @property
    def invalid(self) -> int: ...

    @property
    def colors(self) -> tuple[tuple[int, int, int], ...]: ...

    def plot(self) -> Image.Image: ...


def to_dict(result: ScoredMap) -> dict[str, Any]:
    """See ``Result.to_dict``."""
    total = len(result.vocabulary)
    count = count_labels(result.labels, total)
    encoded = rle.encode_labels(result.labels)
    sums = None if result.scores is None else count_labels(result.labels, total, result.scores)

    def detail(i: int) -> dict[str, Any]:
        return {
            "mean_score": None if sums is None else round(float(sums[i] / count[i]), 6),
            "bbox": encoded[i]["bbox"],
            "segmentation": encoded[i]["rle"],
        }

    about = record("ovseg-result", result, result.labels.shape, count, detail, result.invalid)
    if result.valid is not None:
        about["invalid"]["segmentation"] = rle.encode(~result.valid)
    return about


def record(
    kind: str,
    result: LabelMap,
    size: tuple[int, int],
    count: np.ndarray,
    detail: Callable[[int], dict] = lambda i: {},
    invalid: int = 0,
) -> dict[str, Any]:
    """What every saved label map says of itself, as plain JSON values.

    Args:
        kind: of the file.
        result: a ``Result``, or a raster's.
        size: (H, W).
        count: pixels of each class, and last of none.
        detail: more to say of a class that occurs.
        invalid: pixels that hold no data; fractions are of the others.
    """
    from ovseg import __version__

    vocabulary, (height, width) = result.vocabulary, size
    classes = [
        {
            "id": i,
            "name": vocabulary.names[i],
            "color": _hex(vocabulary.colors[i]),
            "pixels": int(count[i]),
            "fraction": round(float(count[i] / (height * width - invalid)), 6),
            **detail(i),
        }
        for i in by_area(count)
    ]
    return {
        "format": kind,
        "format_version": _VERSION,
        "ovseg_version": __version__,
        "image": {"path": None if result.path is None else str(result.path), "width": width, "height": height},
        **result.provenance.to_dict(),
        "classes": classes,
        "unlabeled": {"id": result.unlabeled, "pixels": int(count[-1])},
        "names": list(vocabulary.names),
        "colors": [_hex(color) for color in vocabulary.colors],
        "vocabulary": vocabulary.to_dict(),
        "vocabulary_hash": vocabulary.hash,
        **({"invalid": {"pixels": invalid}} if invalid else {}),
    }


def paths_of(folder: Path, stem: str, formats: Sequence[str] = DEFAULT_FORMATS) -> dict[str, Path]:
    """What ``Result.save`` writes, by format, in that order."""
    return {form: folder / f"{stem}{ending}" for form, ending in FORMATS.items() if form in formats}


def save_result(
    result: ScoredMap, folder: str | Path, stem: str | None, formats: Sequence[str], overwrite: bool = False
) -> dict[str, Path]:
    """See ``Result.save``."""
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    unknown = [f for f in formats if f not in FORMATS]
    if unknown:
        raise ValueError(f"cannot save as {', '.join(map(repr, unknown))}; the formats are {', '.join(FORMATS)}.")
    if "scores" in formats and result.scores is None:
        raise ValueError("this result has no scores to save: it was read from files without them. Leave out 'scores'.")
    stem = unique_stems([result.path])[0] if stem is None else stem
    folder = Path(folder).expanduser()
    check_place(folder, stem)
    paths = paths_of(folder, stem, formats)
    check_own(paths.values(), overwrite)
    files = {kind: path.name for kind, path in paths.items() if kind != "json"}
    for kind, path in paths.items():
        if kind == "json":
            write_json(path, sealed(to_dict(result) | {"files": files}))
            continue
        with atomic_write(path) as temporary:
            if kind == "overlay":
                save_png(result.plot(), temporary)
            elif kind == "labels":
                save_png(_labels_image(result), temporary, optimize=True)
            else:
                _save_scores(result, temporary)
    return paths


def check_place(folder: Path, stem: str):
    """Raise ValueError for a stem with a folder in it, or a folder that is a file."""
    if not isinstance(stem, str) or not stem or Path(stem).name != stem or "\0" in stem:
        raise ValueError(f"a stem is the beginning of a file name, without folder, got {stem!r}.")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"cannot save into {folder}: it is a file. Give a folder; it is made if need be.")


def load_result(path: str | Path) -> dict[str, Any]:
    """Arguments of the ``Result`` that was saved; see ``Result.load``."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}. Give the .json that Result.save wrote.")
    try:
        data = read_json(path)
        check_format(data, "ovseg-result")
        data = current_keys(data)
        vocabulary, provenance = Vocabulary.from_dict(data["vocabulary"]), Provenance.from_dict(data)
        if list(vocabulary.names) != data["names"]:
            raise ValueError("its names and its vocabulary differ")
        size = picture_size(data["image"])
        labels = _load_labels(data, vocabulary, size)
        arrays = _load_scores(file_beside(data, "scores", path.parent), labels, vocabulary)
        source = data["image"]["path"] and Path(data["image"]["path"])
        return dict(
            labels=labels,
            vocabulary=vocabulary,
            image=load_pixels(source, path.parent, size, provenance),
            provenance=provenance,
            path=source or None,
            valid=_load_valid(data, size),
            **arrays,
        )
    except _DAMAGE as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{path} is not a result that ovseg saved, or it was changed by hand: {what}. Give the .json that "
            "Result.save wrote."
        ) from error


def _labels_image(result: ScoredMap) -> Image.Image:
    image = Image.fromarray(result.labels)
    if result.labels.dtype == np.uint8:
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[: len(result.colors)] = result.colors
        image.putpalette(palette.tobytes())
    return image


def _save_scores(result: ScoredMap, path: Path) -> None:
    planes = {"scores": result.scores, "winners": result.winners, "margin": result.margin}
    arrays: dict[str, Any] = {
        name: plane if name == "winners" else plane.astype(np.float16)
        for name, plane in planes.items()
        if plane is not None
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = MARK.encode()


def _hex(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def picture_size(image: Mapping[str, Any]) -> tuple[int, int]:
    """(H, W) of the picture as a file records it.

    Raises:
        ValueError: no picture has that size.
    """
    side = whole(1, 2**31)
    height, width = side(image["height"], "image.height"), side(image["width"], "image.width")
    if height * width > LARGEST:
        raise ValueError(f"it records a picture of {height}×{width} pixels, more than {LARGEST:,}")
    return height, width


def check_format(data: Any, kind: str) -> None:
    """Raise ValueError for what is no record of a kind that this version can read, or was changed."""
    if not isinstance(data, dict):
        refuse("its content", "a mapping", data)
    if data.get("format") != kind or whole(0, 1000)(data.get("format_version"), "format_version") != _VERSION:
        raise ValueError(f"its format is {shown(data.get('format'))}, version {shown(data.get('format_version'))}")
    check_seal(data)


def _load_labels(data: dict[str, Any], vocabulary: Vocabulary, size: tuple[int, int]) -> np.ndarray:
    """(H, W) ids; masks, names and areas must agree."""
    total, classes = len(vocabulary), data["classes"]
    unlabeled, identity = _unlabeled(vocabulary), whole(0, total - 1)
    masks = {identity(item["id"], "the id of a class"): item["segmentation"] for item in classes}
    if len(masks) < len(classes) or data["unlabeled"]["id"] != unlabeled:
        raise ValueError("its ids are not those of its classes")
    labels = rle.decode_labels(masks, size, unlabeled)
    count = count_labels(labels, total)
    expected = [(item["name"], item["pixels"]) for item in classes]
    if expected != [(vocabulary.names[i], count[i]) for i in masks] or data["unlabeled"]["pixels"] != count[-1]:
        raise ValueError("its masks do not have the names and the areas that it tells of")
    return labels


def _unlabeled(vocabulary: Vocabulary) -> int:
    return 255 if len(vocabulary) <= 255 else 65535


def _load_scores(path: Path | None, labels: np.ndarray, vocabulary: Vocabulary) -> dict[str, np.ndarray | None]:
    if path is None:
        return {"scores": None}
    if not path.is_file():
        warnings.warn(f"the scores of this result are missing: there is no file {path}.", UserWarning, stacklevel=4)
        return {"scores": None}
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > 16 * labels.size + 2**16:
        raise ValueError(f"{path.name} unpacks to {size:,} bytes, and the picture has {labels.size:,} pixels")
    with np.load(path, allow_pickle=False) as content:
        arrays = {name: content[name] for name in ("scores", "winners", "margin") if name in content}
    if "scores" not in arrays or any(array.shape != labels.shape for array in arrays.values()):
        raise ValueError(f"{path.name} does not hold the scores of this result")
    below = [_unlabeled(vocabulary)] + ([] if vocabulary.background.kind == "none" else [0])
    if "winners" in arrays and not ((labels == arrays["winners"]) | np.isin(labels, below)).all():
        raise ValueError(f"{path.name} belongs to other labels")
    return arrays


def _load_valid(data: dict[str, Any], size: tuple[int, int]) -> np.ndarray | None:
    """(H, W) bool, false where the picture holds no data; None where all of it does."""
    if "invalid" not in data:
        return None
    invalid = rle.decode(data["invalid"]["segmentation"])
    if invalid.shape != size:
        raise ValueError(f"its pixels without data are of {invalid.shape}, its labels of {size}")
    return ~invalid


def load_pixels(source: Path | None, folder: Path, shape: tuple[int, int], provenance: Provenance) -> np.ndarray | None:
    """The picture that a file names, read as it was then, if it is still there or in ``folder``, is (H, W) and has the
    same bytes."""
    reading: dict[str, Any] = {name: provenance.protocol.get(name) for name in ("range", "bands")}
    for path in (source, source and folder / source.name):
        if path and os.path.isfile(path):
            try:
                loaded = load_image(path, **reading)
            except (ValueError, TypeError):
                continue
            before, now = provenance.picture, loaded.file
            same = before is None or (now is not None and before.is_same(now))
            if loaded.array.shape[:2] == shape and same:
                return loaded.array
    return None
