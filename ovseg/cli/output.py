"""Where results go: looked at before anything runs, written picture by picture, past those that cannot be written."""

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PROBE = 2**12
"""Bytes that a folder must take to count as one that can be written to."""


class NothingWritableError(Exception):
    """The batch has to stop: the folder takes nothing any more."""


class Output:
    """The folder of one run's results.

    Args:
        folder: need not be there yet.
        items: all pictures of the run.
        files_of: (folder, stem) → what is written of a picture, by kind; the JSON last.
        overwrite: also replace files that ovseg did not write.

    Attributes:
        stems: of the items, in their order.
        unsaved: what is to be said of results that could not be written.

    Raises:
        ValueError: the folder cannot be written to, or holds files of others that would be replaced.
    """

    def __init__(
        self, folder: Path, items: list, files_of: Callable[[Path, str], Mapping[str, Path]], overwrite: bool = False
    ):
        from ovseg.marks import check_own
        from ovseg.pictures.images import unique_stems

        self.folder, self.overwrite, self._files_of = folder, overwrite, files_of
        self.stems, self.unsaved = unique_stems(items), []
        check_writable(folder)
        if folder.is_dir():
            paths = [path for stem in self.stems for path in self.files(stem).values()]
            self._check_pictures(items, paths)
            check_own(paths, overwrite)

    def files(self, stem: str) -> dict[str, Path]:
        """What is written of a picture, by kind, the JSON last."""
        return dict(self._files_of(self.folder, stem))

    def save(self, item, write: Callable[[], Any]) -> Any:
        """What ``write`` returns, which writes the results of a picture; None if it could not, see ``unsaved``.

        Raises:
            NothingWritableError: nothing can be written any more.
        """
        from ovseg.locks import LockedError
        from ovseg.marks import NotOwnError
        from ovseg.pictures.errors import ImageError

        try:
            return write()
        except ImageError:  # of a raster, which is read meanwhile
            raise
        except (LockedError, NotOwnError) as error:
            self.unsaved.append(str(error))
        except OSError as error:
            message = f"{item}: its results could not be written to {self.folder}: {reason(error)}"
            try:
                check_writable(self.folder)
            except ValueError:
                self.unsaved.append(f"{message}; nothing can be written there any more, so the run ends here")
                raise NothingWritableError from None
            self.unsaved.append(message)
        return None

    def _check_pictures(self, items: list, paths: list[Path]):
        own = {path.resolve() for path in paths}
        for item in items:
            if isinstance(item, (str, Path)) and Path(item).resolve() in own:
                raise ValueError(f"{item} is one of the pictures, and its name is that of a result: give another -o.")


def check_writable(folder: Path):
    """Raise ValueError if nothing can be written to a folder, or to the nearest one above it that is there."""
    probe = None
    try:
        there = next((each for each in (folder, *folder.absolute().parents) if os.path.lexists(each)), folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"cannot save into {folder}: it is a file. Give a folder; it is made if need be.")
        probe = there / f".ovseg-{os.getpid()}-{secrets.token_hex(4)}"
        with probe.open("xb") as file:
            file.write(b"\0" * PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ValueError(f"cannot save into {folder}: {reason(error)}. Give another folder with -o.") from error
    finally:
        if probe is not None:
            with suppress(OSError):
                probe.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """What the system says of an error, without its number."""
    return (error.strerror or str(error) or type(error).__name__).lower()
