"""Files of pictures, before they are opened."""

from contextlib import suppress
from pathlib import Path

from .errors import ImageError, ImageNotFoundError

ONE = "the path of an image, a URL, a PIL image, a numpy array or a torch tensor"


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


def holds_mask(path: Path) -> bool:
    """Whether it says where it holds no data beyond its own format, as GDAL writes that: ``PICTURE.msk``, a nodata
    value in ``PICTURE.aux.xml``, or a mask behind the end of a JPEG file."""
    with suppress(OSError, ValueError):
        if Path(f"{path}.msk").is_file():
            return True
        with path.open("rb") as file:
            if file.read(3) == b"\xff\xd8\xff":
                end = file.seek(-4, 2)
                first = int.from_bytes(file.read(4), "little")  # byte of the mask, which is zlib's
                if 4 < first < end and file.seek(first - 2) and file.read(3) == b"\xff\xd9\x78":
                    return True
        notes = Path(f"{path}.aux.xml")
        return notes.is_file() and b"<NoDataValue" in notes.read_bytes()[: 2**20]
    return False
