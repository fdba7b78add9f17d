"""What ``Predictor`` and ``Detector`` do alike: pictures one by one or many, words and pictures apart."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from ovseg.pictures.images import iter_sources, load_image, read_ahead
from ovseg.pictures.pixels import ImageError
from ovseg.predict.memory import reading_of
from ovseg.results.provenance import Provenance
from ovseg.text.vocabulary import Vocabulary
from ovseg.threads import PerThread


class ModelWords(NamedTuple):
    """A vocabulary, and what the engine has made of it."""

    vocabulary: Vocabulary
    encoded: Any


class BasePredictor(ABC):
    """Words and pictures in, results out.

    ``set_image`` runs the tower once; afterwards ``set_classes`` and ``predict`` may alternate as often as wanted.

    Any number of threads may share a model.  The words of ``set_classes`` belong to the model, and a call uses those
    it finds when it begins; the picture of ``set_image`` belongs to the thread that set it.  A model can be copied and
    pickled: the copy has its words and no picture.

    Args:
        engine: what ``ovseg.predict.build.build`` returns. It keeps nothing of words and pictures; this object does.

    Attributes:
        method: name of the method.
        vocabulary: the words last set, None before.
    """

    task = "predict"  # what it does to pictures, in a word

    def __init__(self, engine: Any):
        self.engine = engine
        self._words: ModelWords | None = None
        self._own = PerThread()  # .picture: what set_image has encoded in this thread

    @property
    def method(self) -> str:
        return self.engine.method

    @property
    def vocabulary(self) -> Vocabulary | None:
        words = self._words
        return None if words is None else words.vocabulary

    @property
    def provenance(self) -> Provenance:
        """What results are made with, whatever the picture."""
        return self.engine.provenance(self.vocabulary)

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of ``load_image``: how pictures are read, and what memory they may take."""
        pipeline = getattr(self.engine, "pipeline", None)  # trained detectors have none
        return {} if pipeline is None else reading_of(pipeline)

    def set_classes(self, classes: Any, progress=None) -> "BasePredictor":
        """The words to look for: anything ``Vocabulary.parse`` takes. Returns itself.

        ``progress(done)`` is called while a large vocabulary is encoded.

        Raises:
            ValueError: no words, blank or duplicate names, prompts too long for the text tower.
        """
        self._words = self._read(classes, progress)
        return self

    def set_image(self, image: Any) -> "BasePredictor":
        """Encode a picture and keep it for this thread's ``predict()``. Returns itself; see ``encode``."""
        self._own.picture = self.encode(image)
        return self

    def encode(self, image: Any) -> Any:
        """Read a picture (path, URL, PIL, RGB numpy array, tensor) and run the tower over it, keeping nothing.

        Returns:
            what ``predict`` takes: ``ImageFeatures`` of a ``Predictor``.

        Raises:
            ImageError: not a readable picture.
        """
        loaded = load_image(image, **self.reading)
        return replace(self.engine.encode(loaded.array), source=loaded)

    @abstractmethod
    def predict(self, features: Any = None, words: Any = None) -> Any:
        """The result for what ``encode`` returned and for words (anything ``Vocabulary.parse`` takes).

        Without ``features`` it is that for the picture this thread last set, without ``words`` for those of
        ``set_classes``; both given, the call depends on nothing that was set.

        Raises:
            ValueError: no picture in this thread, or no words yet; features that are none.
        """

    def __call__(self, source: Any, classes: Any = None) -> Any:
        """One result for one picture; a list for a folder, a glob, a list or a generator.

        Args:
            source: pictures, see ``encode``.
            classes: the words of this call alone; those of ``set_classes`` unless given.

        Raises:
            ImageError: a picture that cannot be read. For folders with broken files use ``stream``.
            ValueError: no words.
        """
        words, items, results = self._snapshot(classes), iter_sources(source), []
        for _, picture in read_ahead(items, **self.reading):
            if isinstance(picture, ImageError):
                raise picture
            results.append(self._answer(self.encode(picture), words))
        return results[0] if items.single else results

    def stream(self, source: Any, classes: Any = None) -> Iterator[tuple[Any, Any]]:
        """(item, result) one by one; an unreadable item comes with its ``ImageError`` and the rest goes on.

        Arguments and errors are those of a call; the words are those at the beginning.
        """
        return self._stream(self._snapshot(classes), iter_sources(source))

    def _stream(self, words: ModelWords, items) -> Iterator[tuple[Any, Any]]:
        for item, picture in read_ahead(items, **self.reading):
            yield item, picture if isinstance(picture, ImageError) else self._answer(self.encode(picture), words)

    @abstractmethod
    def _answer(self, features: Any, words: ModelWords) -> Any:
        """The result for encoded features and words."""

    def _read(self, classes: Any, progress=None) -> ModelWords:
        vocabulary = Vocabulary.parse(classes)
        return ModelWords(vocabulary, self.engine.read(vocabulary, progress))

    def _snapshot(self, classes: Any = None) -> ModelWords:
        """The words of one call, which do not change while it runs."""
        words = self._words if classes is None else self._read(classes)
        if words is None:
            raise ValueError(f"there is nothing to {self.task} yet; first give words: call set_classes([...]).")
        return words

    def _picture(self, features: Any = None) -> Any:
        """Features that were given, or those of the picture of this thread."""
        features = getattr(self._own, "picture", None) if features is None else features
        if features is None:
            raise ValueError(
                f"there is nothing to {self.task} yet; first give a picture: call set_image(...) in this thread, or "
                "predict(...) with what encode(...) returned."
            )
        if getattr(features, "source", None) is None:
            raise ValueError(
                f"predict takes what encode(picture) of this model returned, got {type(features).__name__}. For a "
                "picture itself call the model: model(picture)."
            )
        return features
