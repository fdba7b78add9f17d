"""Where is what a phrase names? One box and a heat map per phrase: Adapting CLIP (arXiv 2204.03647), training-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovseg.compat.notice import say_once
from ovseg.files import atomic_write, write_json
from ovseg.marks import check_own, save_png
from ovseg.phrases import PhraseMatch, PhraseSearch, RegionFeatures
from ovseg.pictures.images import LoadedImage, load_image, unique_stems
from ovseg.predict.build import choose_tower, search_provenance
from ovseg.results.draw_boxes import draw_boxes
from ovseg.results.plotting import PlotMixin
from ovseg.results.provenance import Provenance
from ovseg.results.store import check_place
from ovseg.threads import PerThread
from ovseg.towers import Tower


@dataclass(eq=False)
class Location(PhraseMatch, PlotMixin):
    """A ``PhraseMatch`` with its picture.

    image       (H, W, 3) uint8 RGB
    provenance  what it was made with
    path        file the picture came from
    """

    image: np.ndarray
    provenance: Provenance
    path: Path | None = None

    def plot(self, heat: bool = True) -> Image.Image:
        """The picture with the box and, unless switched off, the heat as brightness."""
        return draw_boxes(self.image, [self.box], [self.phrase], self.heat if heat else None)

    def save(self, folder: str | Path, stem: str | None = None) -> dict[str, Path]:
        """Write ``<stem>_boxes.png`` and ``<stem>_boxes.json``, each of them whole or not at all; returns the paths.

        Raises:
            ValueError: a stem with a folder in it, or a folder that is a file.
        """
        return save_locations([self], folder, stem, self.plot())

    def to_dict(self) -> dict[str, Any]:
        box = [round(float(v), 2) for v in self.box]
        return {
            "phrase": self.phrase,
            "box": box,
            "score": round(self.score, 6),
            "objective": round(self.objective, 6),
        }

    def __repr__(self) -> str:
        box = ", ".join(f"{v:.0f}" for v in self.box)
        return f"Location({self.phrase!r}, box ({box}), score {self.score:.3f})"


class Locator(PhraseSearch):
    """Finds phrases in pictures. ``set_image`` does the work once; any number of phrases may follow.

    Any number of threads may share a locator; the picture of ``set_image`` belongs to the thread that set it.

    A phrase that names nothing in the picture gets a box all the same, around the regions that are least unlike it:
    CLIP's cosines have no zero that means "absent".  Compare ``score`` between phrases, on one picture and one model.

    Args:
        weights, arch, quick_gelu: see ``ovseg.towers.load_tower``; None is the embedded demo model.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        tower: a loaded tower instead of ``weights``.
        **settings: ``alpha``, ``temperature``, ``upsample``, ``start_block``, ``counts``, ``size``, ``cache``, see
            ``ovseg.regions.PhraseSearch``.

    Raises:
        ValueError: unknown weights or device, a tower that is not a ViT with a class token, a setting out of range.
        FileNotFoundError: weights that are not here and cannot be fetched.
    """

    def __init__(
        self,
        weights: str | None = None,
        *,
        device: str = "auto",
        arch: str | None = None,
        quick_gelu: bool | None = None,
        tower: Tower | None = None,
        **settings: Any,
    ):
        super().__init__(choose_tower(weights, tower, arch, quick_gelu, device), **settings)
        self._own = PerThread()  # .picture: what set_image has read in this thread
        say_once(self.tower.card.notice)

    def set_image(self, image: Any) -> "Locator":
        """Read a picture (path, URL, PIL, RGB numpy array, tensor) and embed its regions. Returns itself.

        Raises:
            ImageError: not a readable picture.
        """
        self._own.picture = self._read(image)
        return self

    def locate(self, phrase: str | Sequence[str]) -> Location | list[Location]:
        """The place of a phrase in the picture last set; of a list of phrases, one for each in their order.

        Raises:
            ValueError: no picture in this thread yet, or a phrase that is blank or too long.
        """
        picture = getattr(self._own, "picture", None)
        if picture is None:
            raise ValueError("there is no picture to look at yet; first call set_image(...) in this thread.")
        return self._locations(*picture, phrase)

    def __call__(self, image: Any, phrase: str | Sequence[str]) -> Location | list[Location]:
        """``locate`` for one picture, which is not kept."""
        return self._locations(*self._read(image), phrase)

    def _read(self, image: Any) -> tuple[LoadedImage, RegionFeatures]:
        loaded = load_image(image)
        return loaded, self.encode(loaded.array)

    def _locations(self, picture: LoadedImage, regions: RegionFeatures, phrase: str | Sequence[str]):
        matches = self.find(regions, [phrase] if isinstance(phrase, str) else list(phrase))
        provenance = search_provenance(self).of(picture.file)
        extra = dict(image=picture.array, provenance=provenance, path=picture.path)
        locations = [Location(**vars(match), **extra) for match in matches]
        return locations[0] if isinstance(phrase, str) else locations


def locate(image: Any, phrases: str | Sequence[str], weights: str | None = None, **options: Any):
    """The place of a phrase in a picture: a ``Location``; of a list of phrases, one for each in their order.

    Arguments and errors are those of ``Locator``.  For several pictures keep a ``Locator``: it loads the weights once.
    """
    return Locator(weights, **options)(image, phrases)


def paths_of(folder: Path, stem: str) -> dict[str, Path]:
    """What ``save_locations`` writes, by kind, in that order."""
    return {"boxes": folder / f"{stem}_boxes.png", "json": folder / f"{stem}_boxes.json"}


def save_locations(
    locations: Sequence[Location],
    folder: str | Path,
    stem: str | None = None,
    picture: Image.Image | None = None,
    overwrite: bool = False,
) -> dict[str, Path]:
    """``<stem>_boxes.png`` with all boxes and ``<stem>_boxes.json`` for the phrases of one picture.

    Args:
        locations: of one picture, at least one.
        folder: made if it does not exist.
        stem: beginning of the file names; that of the picture by default.
        picture: what to save as PNG; the boxes of all phrases by default.
        overwrite: also replace files that ovseg did not write; its own are always replaced.

    Raises:
        ValueError: no location, a stem with a folder in it, a folder that is a file, a file that is not ovseg's.
        OSError: the disk is full, or the folder cannot be written to.
    """
    if not locations:
        raise ValueError("there is nothing to save: give at least one location.")
    first, folder = locations[0], Path(folder).expanduser()
    stem = unique_stems([first.path])[0] if stem is None else stem
    check_place(folder, stem)
    paths = paths_of(folder, stem)
    check_own(paths.values(), overwrite)
    height, width = first.image.shape[:2]
    if picture is None:
        picture = draw_boxes(first.image, [each.box for each in locations], [each.phrase for each in locations])
    record = {
        "format": "ovseg-locations",
        "format_version": 1,
        "image": {"path": None if first.path is None else str(first.path), "width": width, "height": height},
        **first.provenance.to_dict(),
        "locations": [each.to_dict() for each in locations],
        "files": {"boxes": paths["boxes"].name},
    }
    with atomic_write(paths["boxes"]) as temporary:
        save_png(picture, temporary)
    write_json(paths["json"], record)
    return paths
