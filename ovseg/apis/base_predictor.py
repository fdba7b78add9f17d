"""What ``Predictor`` and ``Detector`` do alike: pictures one by one or many, words and pictures apart."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from ovseg.pictures.images import iter_sources, read_ahead
from ovseg.pictures.pixels import ImageError
from ovseg.predict.memory import reading_of
from ovseg.results.provenance import Provenance
from ovseg.text.vocabulary import Vocabulary


class BasePredictor(ABC):
    """Words and pictures in, results out.

    ``set_image`` runs the tower once; afterwards ``set_classes`` and ``predict`` may alternate as often as wanted.

    Args:
        engine: what ``ovseg.predict.build.build`` returns. It keeps nothing of words and pictures; this object does.

    Attributes:
        method: name of the method.
        vocabulary: the words last set, None before.
    """

    vocabulary: Vocabulary | None = None

    def __init__(self, engine: Any):
        self.engine = engine

    @property
    def method(self) -> str:
        return self.engine.method

    @property
    def provenance(self) -> Provenance:
        """What results are made with, whatever the picture."""
        return self.engine.provenance(self.vocabulary)

    @abstractmethod
    def set_classes(self, classes: Any, progress=None) -> "BasePredictor":
        """The words to look for: anything ``Vocabulary.parse`` takes. Returns itself.

        ``progress(done)`` is called while a large vocabulary is encoded.

        Raises:
            ValueError: no words, blank or duplicate names, prompts too long for the text tower.
        """

    @abstractmethod
    def set_image(self, image: Any) -> "BasePredictor":
        """Read a picture (path, URL, PIL, RGB numpy array, tensor) and run the tower over it. Returns itself.

        Raises:
            ImageError: not a readable picture.
        """

    @abstractmethod
    def predict(self) -> Any:
        """The result for the picture and the words last set."""

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of ``load_image``: how pictures are read, and what memory they may take."""
        pipeline = getattr(self.engine, "pipeline", None)  # trained detectors have none
        return {} if pipeline is None else reading_of(pipeline)

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
