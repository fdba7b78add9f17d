"""Which files are ovseg's own: they carry its mark, or a JSON that it wrote beside them names them.

Nothing else is replaced unless the user says so, and what a JSON names is no picture to be segmented.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path

from ovseg.compat.untrusted import read_json

MARK = "ovseg"
ENDINGS = {
    "_overlay.png": ".json",
    "_labels.png": ".json",
    "_labels.tif": ".json",
    "_scores.npz": ".json",
    "_detections.png": "_detections.json",
    "_boxes.png": "_boxes.json",
    "_compare.png": "_compare.json",
    "_compare.html": "_compare.json",
    "_explain.png": "_explain.json",
}
"""How files of results end, and the JSON that names them."""

_PROVENANCE = {"method", "weights", "protocol", "fingerprint", "picture"}  # of JSON files before they had a format
_TIFF_SOFTWARE = 305


class NotOwnError(ValueError):
    """A file that somebody else wrote would be replaced."""


def check_own(paths: Iterable[Path], overwrite: bool = False) -> None:
    """Raise NotOwnError if files are there that ovseg did not write, unless they may be overwritten."""
    foreign = [] if overwrite else [path for path in paths if not (is_free(path) or is_own(path))]
    if foreign:
        names = ", ".join(path.name for path in foreign[:3]) + (" …" if len(foreign) > 3 else "")
        raise NotOwnError(
            f"{foreign[0].parent} holds {len(foreign)} file(s) that ovseg did not write and would replace: {names}. "
            "Give another folder, or allow it with --overwrite (overwrite=True in Python)."
        )


def is_free(path: Path) -> bool:
    """Whether no file has this name; a link is a file."""
    return not (path.is_symlink() or path.exists())


def is_own(path: Path) -> bool:
    """Whether ovseg wrote a file."""
    if path.is_symlink() or not path.is_file():
        return False
    return is_record(path) if path.suffix == ".json" else is_marked(path) or is_named(path)


def is_named(path: Path) -> bool:
    """Whether a JSON of ovseg beside a file says that it is part of its results."""
    for ending, json in ENDINGS.items():
        if path.name.endswith(ending):
            record = path.with_name(path.name.removesuffix(ending) + json)
            content = _read(record)
            files = content.get("files")
            # Only files of early versions do not list what belongs to them.
            return _is_ours(content) and (path.name in files.values() if isinstance(files, dict) else True)
    return False


def is_result(path: Path) -> bool:
    """Whether a picture is one that ovseg drew, by its name, and by its mark or a JSON beside it.

    The JSON is written last: a run that goes on, or was killed, has pictures without one.
    """
    return path.name.endswith(tuple(ENDINGS)) and (is_named(path) or is_marked(path))


def is_record(path: Path) -> bool:
    """Whether a file is a JSON that ovseg wrote."""
    return _is_ours(_read(path))


def is_marked(path: Path) -> bool:
    """Whether a picture, a page or an archive names ovseg as the program that wrote it."""
    from PIL import Image

    try:
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return archive.comment == MARK.encode()
        if path.suffix == ".html":
            with path.open("rb") as file:
                return f'name="generator" content="{MARK}"'.encode() in file.read(2000)
        with Image.open(path) as image:
            tags = getattr(image, "tag_v2", {})
            return MARK in (image.info.get("Software"), tags.get(_TIFF_SOFTWARE))
    except Exception:  # Pillow's plugins raise whatever a broken file leads them to
        return False


def save_png(image, path: Path, **options) -> None:
    """Write a PIL image as PNG with ovseg's mark."""
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("Software", MARK)
    image.save(path, "PNG", pnginfo=notes, **options)


def _is_ours(content: dict) -> bool:
    kind = content.get("format")
    return (isinstance(kind, str) and kind.startswith("ovseg-")) or content.keys() >= _PROVENANCE


def _read(path: Path) -> dict:
    try:
        content = {} if path.is_symlink() or not path.is_file() else read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
