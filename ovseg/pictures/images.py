"""Reading images: whatever the user has at hand becomes one (H, W, 3) uint8 RGB array."""

import glob
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image, UnidentifiedImageError

from .identity import PictureFile
from .pixels import (
    ImageError,
    ImageNotFoundError,
    from_numpy,
    from_pillow,
    from_tensor,
    is_tensor,
    pillow_limit,
    too_large,
)

MAX_DOWNLOAD = 256 * 2**20
"""Largest download, in bytes."""

TIMEOUT = 20.0
"""Seconds a server may stay silent."""

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .gif .tif .tiff .webp .avif .jp2 .ppm .pgm .pbm .pnm .tga".split()
)
"""What counts as an image in a folder or behind a glob, in any case. A file named outright may end in anything."""

ONE = "the path of an image, a URL, a PIL image, a numpy array or a torch tensor"
MANY = "a path, a URL, a folder, a glob, a PIL image, a numpy array, a torch tensor, or a list of these"


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image in memory.

    Attributes:
        array: (H, W, 3) uint8 RGB, H and W at least 1; always a copy, so that a reused frame buffer changes nothing.
        path: the file it came from; None for URLs and for objects in memory.
        name: a short name for titles and file names, without folder and suffix; ``"image"`` for objects in memory.
        file: name, size and hash of the bytes it came as; None for objects in memory.
    """

    array: np.ndarray
    path: Path | None
    name: str
    file: PictureFile | None = None


def load_image(source: Any) -> LoadedImage:
    """Read one image.

    * Path or http(s) URL: every format Pillow reads; the first frame of an animation. A URL is fetched only because it
      was given, for at most ``TIMEOUT`` seconds of silence and ``MAX_DOWNLOAD`` bytes.
    * PIL image: its current frame; the image itself is not changed.
    * numpy, RGB order (OpenCV users: ``array[..., ::-1]``): (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8, uint16
      (divided by 257), float in [0, 1], or bool.
    * torch tensor: (H, W); (C, H, W) with C = 1, 3 or 4; or (H, W, C) when the first axis is none of these. Types as
      for numpy; any device.

    The EXIF rotation is applied (files and PIL images), grey becomes RGB, transparency is laid over white, palettes and
    CMYK are converted, 16-bit grey is divided by 257 so that 65535 becomes 255. Colour profiles are ignored.

    Raises:
        ImageNotFoundError: no such file (also a FileNotFoundError).
        ImageError: anything else that cannot be read as an image, or more than ``MAX_PIXELS`` pixels (a ValueError).
    """
    if isinstance(source, LoadedImage):
        return source
    if isinstance(source, Image.Image):
        with _reading("the PIL image"):
            return LoadedImage(from_pillow(source, "the PIL image"), None, "image")
    if isinstance(source, np.ndarray):
        return LoadedImage(from_numpy(source, "the numpy array"), None, "image")
    if is_tensor(source):
        return LoadedImage(from_tensor(source), None, "image")
    if _is_url(source):
        content = _download(source)
        file = PictureFile.of_bytes(PurePosixPath(unquote(urlsplit(source).path)).name, content)
        return LoadedImage(_decode(BytesIO(content), source), None, name_of(source), file)
    if not isinstance(source, str | Path):
        raise ImageError(f"cannot read an image from an object of type {type(source).__name__}. Give {ONE}.")
    path = Path(source).expanduser()
    check_file(path)
    pixels = _decode(path, str(path))  # first: a picture that is too large is refused unread
    return LoadedImage(pixels, path, name_of(path), _identify(path))


def identify(source: Any) -> PictureFile | None:
    """``load_image(source).file`` without decoding; None for objects in memory.

    Raises:
        ImageError: no such file or address, or one that cannot be read.
    """
    if isinstance(source, LoadedImage):
        return source.file
    if _is_url(source):
        return PictureFile.of_bytes(PurePosixPath(unquote(urlsplit(source).path)).name, _download(source))
    if not isinstance(source, str | Path):
        return None
    path = Path(source).expanduser()
    check_file(path)
    return _identify(path)


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
    it matches; both sorted by path. A list, tuple or generator may mix everything and may nest; a generator is read
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
    if isinstance(source, str | Path):
        return _expand(Path(source).expanduser(), recursive)
    if isinstance(source, Iterable) and not isinstance(source, bytes | bytearray | dict):
        return Sources(_iter_lazily(source, recursive))
    raise ImageError(f"cannot find images in an object of type {type(source).__name__}. Give {MANY}.")


def read_ahead(items: Iterable[Any]) -> Iterator[tuple[Any, LoadedImage | ImageError]]:
    """(item, picture or what is wrong with it); a thread reads the next picture while the caller works on this one.

    A generator (``Sources`` without a ``count``) is not asked before the caller asks: its frames may share a buffer.
    """

    def read(item):
        try:
            return load_image(item)
        except ImageError as error:
            return error

    if isinstance(items, Sources) and items.count is None:
        yield from ((item, read(item)) for item in items)
        return
    with ThreadPoolExecutor(1) as thread:
        now = None
        for item in items:
            coming = item, thread.submit(read, item)
            if now is not None:
                yield now[0], now[1].result()
            now = coming
        if now is not None:
            yield now[0], now[1].result()


def name_of(source: Any) -> str:
    """A short name for a source: the file name without suffix, ``"image"`` for objects in memory."""
    if _is_url(source):
        source = PurePosixPath(unquote(urlsplit(source).path))
    return (Path(source).stem or "image") if isinstance(source, str | Path | PurePosixPath) else "image"


def unique_stems(sources: Iterable[Any]) -> list[str]:
    """A file stem for each source, no two alike even on disks that ignore case.

    A name that is taken is told apart by its folders (``a/cat.jpg``, ``b/cat.jpg`` -> ``a_cat``, ``b_cat``), then by
    its suffix (``cat.jpg``, ``cat.png`` -> ``cat_jpg``, ``cat_png``), then by a number (``image``, ``image_2``).
    """
    sources = list(sources)
    stems = [_safe(name_of(source)) for source in sources]
    paths = [Path(urlsplit(s).path if _is_url(s) else s) if isinstance(s, str | Path) else None for s in sources]
    for depth in range(1, 1 + max((len(p.parts) for p in paths if p), default=1)):
        for i in _clashes(stems):
            if paths[i] and depth < len(paths[i].parts):
                stems[i] = _safe(f"{paths[i].parts[-1 - depth]}_{stems[i]}")
    for i in _clashes(stems):
        if paths[i] and paths[i].suffix:
            stems[i] = _safe(f"{stems[i]}_{paths[i].suffix[1:]}")
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
        files = path.rglob("*") if recursive else path.iterdir()
        found = sorted(f for f in files if _is_image(f))
        if not found:
            hint = "" if recursive else " Images in the folders inside it are only read with recursive=True."
            raise ImageNotFoundError(
                f"there is no image in the folder {path}: looked for files ending in {_suffixes()}.{hint}"
            )
        return Sources(found)
    if not os.path.exists(path) and glob.has_magic(str(path)):
        matches = [Path(match) for match in glob.iglob(str(path), recursive=True)]
        found = sorted(f for f in matches if _is_image(f))
        if not found:
            raise ImageNotFoundError(
                f"no image matches the pattern {path}: {len(matches)} files or folders match it, none of them an image "
                f"ending in {_suffixes()}."
            )
        return Sources(found)
    check_file(path)
    return Sources([path], single=True)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))


def check_file(path: Path) -> None:
    """Raise ImageError for what is no file, cannot be opened or is empty."""
    try:
        info = path.stat()
    except FileNotFoundError as error:
        raise ImageNotFoundError(f"there is no file {path} (looked from {Path.cwd()}). Give {ONE}.") from error
    except (OSError, ValueError) as error:  # a name that is too long or holds a null byte, a folder that is closed
        raise ImageError(
            f"{str(path)[:200]!r} cannot be opened: {getattr(error, 'strerror', None) or error}. Give {ONE}."
        ) from error
    if path.is_dir():
        raise ImageError(f"{path} is a folder, not an image. Give one of its files, or loop over iter_sources(folder).")
    if info.st_size == 0:
        raise ImageError(f"the file {path} is empty (0 bytes), so it holds no image. Copy or download it again.")


def _is_url(source: Any) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _download(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "ovseg", "Accept": "image/*, */*;q=0.5"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            data = response.read(MAX_DOWNLOAD + 1)
            length = response.headers.get("Content-Length", "")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        code = f"HTTP {error.code} " if isinstance(error, urllib.error.HTTPError) else ""
        raise ImageError(
            f"could not fetch {url}: {code}{reason or type(error).__name__}. Check the address and the network, or "
            "download the image and give its path."
        ) from error
    if len(data) > MAX_DOWNLOAD:
        raise ImageError(
            f"the file at {url} is larger than {MAX_DOWNLOAD // 2**20} MiB, the most that is fetched. Download it and "
            "give its path."
        )
    if not data or (length.isdigit() and len(data) < int(length)):
        raise ImageError(f"the server of {url} sent {len(data)} of {length or '?'} bytes. Try again.")
    return data


def _identify(path: Path) -> PictureFile:
    with _reading(str(path)):
        return PictureFile.of_file(path)


def _decode(file: Path | BytesIO, what: str) -> np.ndarray:
    with _reading(what), Image.open(file) as image:
        return from_pillow(image, what)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Our size limit instead of Pillow's, and one clear error for whatever goes wrong inside."""
    with pillow_limit():
        try:
            yield
        except (ImageError, MemoryError):
            raise
        except Image.DecompressionBombError as error:
            raise too_large(what, str(error)) from error
        except PermissionError as error:
            raise ImageError(f"{what} may not be read by this user: permission denied.") from error
        except UnidentifiedImageError as error:
            raise ImageError(
                f"{what} is not an image, or of a format that Pillow {Image.__version__} cannot read. Open it in a "
                "viewer to check; if it shows, save it as PNG or JPEG and give that."
            ) from error
        except Exception as error:  # Pillow's plugins let nearly any exception out when the bytes are broken
            raise ImageError(
                f"{what} is a damaged image or an incomplete download: {error or type(error).__name__}. Copy or "
                "download it again, or save it anew from a viewer."
            ) from error
