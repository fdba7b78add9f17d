"""The words of a detector whose classes are text: those of its training labels, and others at run time."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ovseg.predict.protocol import digest
from ovseg.registry import component_name
from ovseg.results.provenance import Provenance, Weights, tower_weights
from ovseg.text.cache import EmbeddingCache
from ovseg.text.encoder import TextEncoder
from ovseg.text.vocabulary import Vocabulary, unseen_names
from ovseg.towers import Tower


class RuntimeClasses:
    """A mix-in: ``set_classes``, and embeddings with their classes.

    Attributes:
        vocabulary: what predictions choose among.
        train_vocabulary: what the ids of the training labels stand for.
        unseen: names of it that training must not see.
        metric: of ``ovseg.evaluation``, which scores it on a benchmark.
        own_pipeline: whether it reads the images of a benchmark by the pipeline of its config.
        loader: in ``LOADERS``, runs its checkpoints for ``ovseg.load``; None or absent: nothing does.
        trained_weights: the checkpoint that was loaded.
        takes_boxes: whether samples with ``proposals`` are asked for those.

    A detector has ``tower`` and ``extract_feat``, and its ``predict`` takes what the latter gave as ``features``.
    """

    metric = "OpenVocabAP"
    own_pipeline = True
    trained_weights: Weights | None = None
    takes_boxes = False

    @property
    @abstractmethod
    def settings(self) -> dict:
        """What decides a prediction besides weights and words, plain JSON values."""

    def open_words(self, tower: Tower, vocabulary, unseen: Sequence[str] | str = (), templates="imagenet_80"):
        """Set up; ``tower`` is that with the text model, ``unseen`` as ``text.vocabulary.unseen_names`` takes it.

        Raises:
            ValueError: unseen names that the vocabulary does not have, or a tower without text.
        """
        self._encoder = TextEncoder(tower, templates, EmbeddingCache())
        self.train_vocabulary = self.vocabulary = Vocabulary.parse(vocabulary)
        self.unseen = unseen_names(self.vocabulary, unseen)
        self._embedded: dict[str, Tensor] = {}

    def set_classes(self, vocabulary):
        """Predict these words from now on, anything ``Vocabulary.parse`` takes; training keeps its own.

        Raises:
            ValueError: words that are none, or that the text tower cannot read.
        """
        self.vocabulary = Vocabulary.parse(vocabulary)
        self.embeddings(self.vocabulary)

    def embeddings(self, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
        """Unit embeddings (T, E) of a vocabulary's words and their classes (T,)."""
        prompts = vocabulary.prompts
        key = "\n".join(prompts)
        if key not in self._embedded:
            recent = list(self._embedded)[-2:]  # those in use: of training, of prediction, of background
            self._embedded = {name: self._embedded[name] for name in recent}
            self._embedded[key] = self._encoder(prompts).clone()  # out of inference mode, so that losses may use it
        text = self._embedded[key].to(self._encoder.tower.device)
        return text, torch.tensor(vocabulary.prompt_to_class, device=text.device)

    @property
    def provenance(self) -> Provenance:
        """What predictions are made with: settings, words, the weights it began with and those loaded."""
        settings = self.settings
        return Provenance(
            method=component_name(type(self)),
            weights=tower_weights(self.tower.card, self.trained_weights),
            vocabulary_hash=self.vocabulary.hash,
            protocol=settings,
            fingerprint=digest(settings),
        )

    @property
    def hidden(self) -> Tensor:
        """(K,) boolean: classes of the training labels that training must not see."""
        return torch.tensor([name in self.unseen for name in self.train_vocabulary.names])

    def without_hidden(self, data_samples):
        """The samples without the instances of hidden classes.

        Raises:
            ValueError: labels beyond the training vocabulary.
        """
        hidden = self.hidden
        for sample in data_samples:
            labels = sample.gt_instances.labels
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(hidden):
                raise ValueError(
                    f"labels go up to {int(labels.max())}, but the training vocabulary has the ids 0 to "
                    f"{len(hidden) - 1}: give vocabulary= the classes of the dataset, in its order."
                )
            if hidden.any() and len(labels) and hidden[labels.cpu()].any():
                sample.gt_instances = sample.gt_instances[~hidden[labels.cpu()].to(labels.device)]
        return data_samples
