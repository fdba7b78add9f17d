"""Reading images: whatever the user has at hand becomes one (H, W, 3) uint8 RGB array."""

import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from ovseg.marks import is_result

from .budget import READING, check_budget
from .decode import decode, reading
from .errors import ImageError, ImageNotFoundError
from .fetch import Later, download
from .files import ONE, check_file
from .identity import PictureFile
from .levels import check_bands, check_range
from .pixels import from_numpy, from_pillow, from_tensor, is_tensor

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .gif .tif .tiff .webp .avif .jp2 .ppm .pgm .pbm .pnm .tga".split()
)
"""What counts as an image in a folder or behind a glob, in any case. A file named outright may end in anything."""

MANY = "a path, a URL, a folder, a glob, a PIL image, a numpy array, a torch tensor, or a list of these"


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image in memory.

    Attributes:
        array: (H, W, 3) uint8 RGB, H and W at least 1; always a copy, so that a reused frame buffer changes nothing.
        path: the file it came from; None for URLs and for objects in memory.
        name: a short name for titles and file names, without folder and suffix; ``"image"`` for objects in memory.
        file: name, size and hash of the bytes it came as; None for objects in memory.
        valid: (H, W) bool, false where a raster holds no data; None where all pixels are valid.
    """

    array: np.ndarray
    path: Path | None
    name: str
    file: PictureFile | None = None
    valid: np.ndarray | None = None


def load_image(
    source: Any,
    *,
    range: tuple[float, float] | None = None,
    bands: Sequence[int] | None = None,
    per_pixel: float = READING,
) -> LoadedImage:
    """Read one image.

    * Path or http(s) URL: every format Pillow reads; the first frame of an animation. A URL is fetched only because it
      was given, see ``ovseg.pictures.fetch`` for the limits of time and size. TIFF files of more than 8 bits, of
      several bands or with nodata and masks, and JPEG 2000, are read by GDAL where rasterio is installed.
    * PIL image: its current frame; the image itself is not changed.
    * numpy, RGB order (OpenCV users: ``array[..., ::-1]``): (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16
      (divided by 257), float in [0, 1], or bool.
    * torch tensor: (H, W); (C, H, W) with C = 1, 3 or 4; or (H, W, C) when the first axis is none of these. Types as
      for numpy; any device.

    The EXIF rotation is applied (files and PIL images), gray becomes RGB, transparency is laid over white, palettes and
    CMYK are converted, 16-bit values are divided by 257 so that 65535 becomes 255, unless the file says that it uses
    fewer bits. Color profiles are ignored. Fully transparent pixels, nodata values and masks of TIFF and JPEG 2000
    files make ``valid``.

    Args:
        source: see above.
        range: (low, high), the values that are black and white; it makes any integers and floats readable.
        bands: one or three to read, counted from 1 (files and arrays): ``(4, 3, 2)``.
        per_pixel: bytes per pixel that reading the picture and what follows take; if they are more than most of the
            memory that is free, the picture is not decoded.

    Raises:
        ImageNotFoundError: no such file (also a FileNotFoundError).
        ImageError: anything else that cannot be read as an image, more than ``MAX_PIXELS`` pixels, or too many for the
            free memory (a ValueError).
        ValueError: a range or bands that are none.
    """
    limits, bands = check_range(range), check_bands(bands)
    if isinstance(source, LoadedImage):
        return source
    if isinstance(source, Image.Image | np.ndarray) or is_tensor(source):
        return _in_memory(source, limits, bands, per_pixel)
    settings: dict[str, Any] = dict(limits=limits, bands=bands, per_pixel=per_pixel)
    if _is_url(source):
        content = download(source)
        array, valid = decode(BytesIO(content), source, **settings)
        file = PictureFile.of_bytes(_last_name(source), content, source)
        return LoadedImage(array, None, name_of(source), file, valid)
    if not isinstance(source, str | Path):
        raise ImageError(f"cannot read an image from an object of type {type(source).__name__}. Give {ONE}.")
    path = _user(source)
    check_file(path)
    array, valid = decode(path, str(path), **settings)  # first: a picture that is too large is refused unread
    return LoadedImage(array, path, name_of(path), _identify(path), valid)


def identify(source: Any) -> PictureFile | None:
    """``load_image(source).file`` without decoding; None for objects in memory.

    Raises:
        ImageError: no such file or address, or one that cannot be read.
    """
    if isinstance(source, LoadedImage):
        return source.file
    if _is_url(source):
        return PictureFile.of_bytes(_last_name(source), download(source), source)
    if not isinstance(source, str | Path):
        return None
    path = _user(source)
    check_file(path)
    return _identify(path)


def _identify(path: Path) -> PictureFile:
    with reading(str(path)):
        return PictureFile.of_file(path)


def _in_memory(source: Any, limits, bands, per_pixel: float) -> LoadedImage:
    what = "the PIL image" if isinstance(source, Image.Image) else "the numpy array"
    if bands is not None and not isinstance(source, np.ndarray):
        raise ImageError("bands are chosen from files and numpy arrays: leave out bands, or give one of these.")
    with reading(what):
        if isinstance(source, Image.Image):
            check_budget(source.height, source.width, what, per_pixel)
            array, valid = from_pillow(source, what, limits)
            return LoadedImage(array, None, "image", valid=valid)
        array = (
            from_numpy(source, what, limits, bands) if isinstance(source, np.ndarray) else from_tensor(source, limits)
        )
        check_budget(array.shape[0], array.shape[1], what, per_pixel)
        return LoadedImage(array, None, "image")


class Sources:
    """The single images behind a source, as ``iter_sources`` found them. Loop over it; ``len`` is the number of images.

    Attributes:
        single: the source was one image itself, not a folder, glob or list that happens to hold one.
        count: number of images; None for a generator, whose ``len`` is a TypeError.
    """

    def __init__(self, items: Iterable[Any], single: bool = False):
        self._items = items
        self.single = single
        self.count = len(items) if isinstance(items, list) else None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        if self.count is None:
            raise TypeError("a generator of images has no length; wrap it in list(...) to count them.")
        return self.count

    def __bool__(self) -> bool:
        return True


def iter_sources(source: Any, recursive: bool = False) -> Sources:
    """The single images behind a source, unread: each item is something ``load_image`` takes.

    A folder stands for the images in it (by suffix, see ``SUFFIXES``; hidden files are skipped), a glob for the images
    it matches; both sorted by path. Pictures that are results of ovseg are left out, and so are linked folders; a
    warning says so. A list, tuple or generator may mix everything and may nest; a generator is read
    lazily.

    Args:
        source: see above; a single file, URL, PIL image, array or tensor stands for itself.
        recursive: also look into the folders inside a folder. A glob says so itself with ``**``.

    Raises:
        ImageNotFoundError: a path that does not exist, a folder without images, a glob without matches.
        ImageError: an empty list or generator, or an object that cannot be a source. Out of a generator both are
            raised when their turn comes.
    """
    if isinstance(source, list | tuple):
        items = [item for part in source for item in iter_sources(part, recursive)]
        if not items:
            raise ImageError(f"the list of images is empty. Give {MANY}.")
        return Sources(items)
    if isinstance(source, LoadedImage | Image.Image | np.ndarray) or is_tensor(source) or _is_url(source):
        return Sources([source], single=True)
    if isinstance(source, str) and not source.strip():
        raise ImageError(f"the name of an image is empty. Give {MANY}; the folder you are in is '.'.")
    if isinstance(source, str | Path):
        return _expand(_user(source), recursive)
    if isinstance(source, Iterable) and not isinstance(source, bytes | bytearray | dict):
        return Sources(_iter_lazily(source, recursive))
    raise ImageError(f"cannot find images in an object of type {type(source).__name__}. Give {MANY}.")


def read_ahead(items: Iterable[Any], **settings: Any) -> Iterator[tuple[Any, LoadedImage | ImageError]]:
    """(item, picture or what is wrong with it); a thread reads the next picture while the caller works on this one.

    A generator (``Sources`` without a ``count``) is not asked before the caller asks: its frames may share a buffer.

    Args:
        items: what ``load_image`` takes.
        **settings: of ``load_image``.
    """

    def load(item):
        try:
            return load_image(item, **settings)
        except ImageError as error:
            return error

    if isinstance(items, Sources) and items.count is None:
        yield from ((item, load(item)) for item in items)
        return
    now = None
    for item in items:
        coming = item, Later(partial(load, item))
        if now is not None:
            yield now[0], now[1].result()
        now = coming
    if now is not None:
        yield now[0], now[1].result()


def name_of(source: Any) -> str:
    """A short name for a source: the file name without suffix, ``"image"`` for objects in memory."""
    if _is_url(source):
        source = PurePosixPath(unquote(_url_path(source)))
    return (Path(source).stem or "image") if isinstance(source, str | Path | PurePosixPath) else "image"


def unique_stems(sources: Iterable[Any]) -> list[str]:
    """A file stem for each source, no two alike even on disks that ignore case.

    A name that is taken is made unique by its folders (``a/cat.jpg``, ``b/cat.jpg`` -> ``a_cat``, ``b_cat``), then by
    its suffix (``cat.jpg``, ``cat.png`` -> ``cat_jpg``, ``cat_png``), then by a number (``image``, ``image_2``).
    """
    sources = list(sources)
    stems = [_safe(name_of(source)) for source in sources]
    paths = [Path(_url_path(s) if _is_url(s) else s) if isinstance(s, str | Path) else None for s in sources]
    for depth in range(1, 1 + max((len(p.parts) for p in paths if p), default=1)):
        for i in _clashes(stems):
            path = paths[i]
            if path and depth < len(path.parts):
                stems[i] = _safe(f"{path.parts[-1 - depth]}_{stems[i]}")
    for i in _clashes(stems):
        path = paths[i]
        if path and path.suffix:
            stems[i] = _safe(f"{stems[i]}_{path.suffix[1:]}")
    clashing = set(_clashes(stems))
    taken = {stem.casefold() for i, stem in enumerate(stems) if i not in clashing}
    for i in sorted(clashing):
        base, number = stems[i], 1
        while stems[i].casefold() in taken:
            number += 1
            stems[i] = f"{base}_{number}"
        taken.add(stems[i].casefold())
    return stems


def _clashes(stems: list[str]) -> list[int]:
    count: dict[str, int] = {}
    for stem in stems:
        count[stem.casefold()] = count.get(stem.casefold(), 0) + 1
    return [i for i, stem in enumerate(stems) if count[stem.casefold()] > 1]


def _safe(name: str) -> str:
    """Without the characters that some file system forbids, and short enough to leave room for our endings."""
    name = name.encode("utf-8", "replace")[-180:].decode("utf-8", "ignore")
    return re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name).strip(" .") or "image"


def _iter_lazily(source: Iterable[Any], recursive: bool) -> Iterator[Any]:
    empty = True
    for part in source:
        empty = False
        yield from iter_sources(part, recursive)
    if empty:
        raise ImageError(f"the {type(source).__name__} gave no image at all. Give {MANY}.")


def _expand(path: Path, recursive: bool) -> Sources:
    if os.path.isdir(path):
        files = _walk(path) if recursive else path.iterdir()
        with reading(str(path)):
            image_files = _without_results([f for f in files if _is_image(f)], str(path))
        if not image_files:
            hint = "" if recursive else " Images in the folders inside it are only read with recursive=True."
            raise ImageNotFoundError(
                f"there is no image in the folder {path}: looked for files ending in {_suffixes()}.{hint}"
            )
        return Sources(image_files)
    if not os.path.exists(path) and glob.has_magic(str(path)):
        matches = [Path(match) for match in glob.iglob(str(path), recursive=True)]
        image_files = _without_results([f for f in matches if _is_image(f)], str(path))
        if not image_files:
            raise ImageNotFoundError(
                f"no image matches the pattern {path}: {len(matches)} files or folders match it, none of them an image "
                f"ending in {_suffixes()}."
            )
        return Sources(image_files)
    check_file(path)
    return Sources([path], single=True)


def _walk(folder: Path) -> Iterator[Path]:
    """All files below a folder; linked folders, which may lead round in circles, and closed ones are named instead."""
    closed: list[OSError] = []
    linked: list[str] = []
    for root, folders, names in os.walk(folder, onerror=closed.append):
        linked += [path for path in (os.path.join(root, name) for name in folders) if os.path.islink(path)]
        yield from (Path(root, name) for name in names)
    if closed or linked:
        left_out = sorted([*linked, *(str(error.filename) for error in closed)])
        more = " …" if len(left_out) > 3 else ""
        warnings.warn(
            f"{len(left_out)} folder(s) in {folder} are links or closed and were left out: "
            f"{', '.join(left_out[:3])}{more}. Give them by name.",
            UserWarning,
            stacklevel=2,
        )


def _without_results(files: list[Path], where: str) -> list[Path]:
    """Sorted, without pictures that are results of ovseg."""
    found = sorted(file for file in files if not is_result(file))
    if len(found) < len(files):
        left_out = f"{len(files) - len(found)} picture(s) in {where} are results of ovseg"
        if not found:
            raise ImageNotFoundError(
                f"{left_out}; there is no other image. Give one by its name to use it all the same."
            )
        warnings.warn(f"{left_out}; they are left out.", UserWarning, stacklevel=2)
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))


def _is_url(source: Any) -> TypeGuard[str]:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _last_name(url: str) -> str:
    """The last part of an address's path."""
    return PurePosixPath(unquote(_url_path(url))).name


def _url_path(url: str) -> str:
    """The path of an address; what follows its scheme where that is none."""
    try:
        return urlsplit(url).path
    except ValueError:
        return url.split("//", 1)[-1]


def _user(source: str | Path) -> Path:
    """A path, ``~`` replaced; as it is where there is no such user."""
    try:
        return Path(source).expanduser()
    except RuntimeError:
        return Path(source)
