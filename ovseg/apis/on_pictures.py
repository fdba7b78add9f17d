"""What ``Predictor`` and ``Detector`` do alike: pictures one by one or many, words and pictures apart."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from ovseg.pictures.images import iter_sources, read_ahead
from ovseg.pictures.pixels import ImageError
from ovseg.text.vocabulary import Vocabulary


class OnPictures(ABC):
    """Words and pictures in, results out.

    ``set_image`` runs the tower once; afterwards ``set_classes`` and ``predict`` may alternate as often as wanted.

    Attributes:
        method: name of the method.
        vocabulary: the words last set, None before.
    """

    method: str
    vocabulary: Vocabulary | None = None

    @abstractmethod
    def set_classes(self, classes: Any, progress=None) -> "OnPictures":
        """The words to look for: anything ``Vocabulary.parse`` takes. Returns itself.

        ``progress(done)`` is called while a large vocabulary is encoded.

        Raises:
            ValueError: no words, blank or duplicate names, prompts too long for the text tower.
        """

    @abstractmethod
    def set_image(self, image: Any) -> "OnPictures":
        """Read a picture (path, URL, PIL, RGB numpy array, tensor) and run the tower over it. Returns itself.

        Raises:
            ImageError: not a readable picture.
        """

    @abstractmethod
    def predict(self) -> Any:
        """The result for the picture and the words last set."""

    @property
    @abstractmethod
    def conditions(self) -> dict[str, str]:
        """What a result depends on beside the picture: ``weights``, ``vocabulary_hash`` and ``fingerprint`` of the
        settings."""

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of ``load_image``: how pictures are read, and what memory they may take."""
        return {}

    def made(self, record: dict) -> bool:
        """Whether a saved result (its ``to_dict``) comes from this very method, weights, settings and words."""
        asked = self.conditions | {"method": self.method}
        fingerprint = asked.pop("fingerprint")
        same = all(record.get(name) == value for name, value in asked.items())
        return same and record.get("protocol", {}).get("fingerprint") == fingerprint

    def __call__(self, source: Any, classes: Any = None) -> Any:
        """One result for one picture; a list for a folder, a glob, a list or a generator.

        Raises:
            ImageError: a picture that cannot be read. For folders with broken files use ``stream``.
        """
        if classes is not None:
            self.set_classes(classes)
        items, results = iter_sources(source), []
        for _, picture in read_ahead(items, **self.reading):
            if isinstance(picture, ImageError):
                raise picture
            results.append(self.set_image(picture).predict())
        return results[0] if items.single else results

    def stream(self, source: Any) -> Iterator[tuple[Any, Any]]:
        """(item, result) one by one; an unreadable item comes with its ``ImageError`` and the rest goes on."""
        for item, picture in read_ahead(iter_sources(source), **self.reading):
            yield item, picture if isinstance(picture, ImageError) else self.set_image(picture).predict()
