"""The base class of trained open-vocabulary segmentors: they predict like training-free ones and add a loss."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from ovseg.argmax import max_over_synonyms
from ovseg.dense import DenseFeatures
from ovseg.registry import component_name
from ovseg.results.provenance import RUNNING, Provenance, Weights, tower_weights
from ovseg.text.vocabulary import Vocabulary, unseen_names
from ovseg.towers import tuning as tune

from .open_vocab import OpenVocabSegmentor


class TrainableSegmentor(OpenVocabSegmentor):
    """An ``OpenVocabSegmentor`` with a loss.

    The tower is frozen except for what ``tuning`` makes trainable; modules of the extractor and the scorer are trained.
    Training images come in batches of one size, cropped by the dataset pipeline; prediction is that of
    ``OpenVocabSegmentor``, with all classes of ``vocabulary``.

    Args:
        train_vocabulary: the classes of the training labels; ``vocabulary`` by default.
        unseen: names of classes hidden from training, see ``text.vocabulary.unseen_names``: their pixels are
            ignored, their names left out.
        tuning: presets of ``ovseg.towers.tuning``, or their configs.
        **parts: see ``OpenVocabSegmentor``.

    Raises:
        ValueError: unknown settings, classes, weights or presets.
    """

    def __init__(
        self,
        *args,
        train_vocabulary=None,
        unseen: str | Sequence[str] = (),
        tuning: Sequence[dict] = (),
        **parts,
    ):
        super().__init__(*args, **parts)
        self._labeled = self.vocabulary if train_vocabulary is None else Vocabulary.parse(train_vocabulary)
        self._unseen = unseen
        self.presets = tune.apply(self.tower, tuning)
        self.cache = None if tune.trains(self.tower, "text") else self.cache  # it knows the words of named weights only
        self._train_text: Tensor | None = None

    options_in_weights = False  # what it begins with is a plain CLIP
    trained_weights: Weights | None = None  # the checkpoint that was loaded

    @property
    def tower(self):
        return self.pipeline.tower

    @property
    def provenance(self) -> Provenance:
        """As in the base class, with the checkpoint added to the weights."""
        base, weights = super().provenance, tower_weights(self.tower.card, self.trained_weights or RUNNING)
        options = {"dense": base.method} | dict(base.options)
        return replace(base, method=component_name(type(self)), options=options, weights=weights)

    def train(self, mode: bool = True):
        """The tower stays in evaluation mode: its statistics are part of its weights."""
        super().train(mode)
        self.tower.eval()
        if mode and tune.trains(self.tower, "text"):
            self._text = None  # of words encoded before the next steps
        return self

    @cached_property
    def train_vocabulary(self) -> Vocabulary:
        """The vocabulary used in training.

        Raises:
            ValueError: unseen names that are not among the labels, or only unseen ones.
        """
        hidden = unseen_names(self._labeled, self._unseen)
        seen = [name for name in self._labeled.names if name not in hidden]
        return self._labeled.subset(seen) if hidden else self._labeled

    # --- for losses ------------------------------------------------------------------------------------------------

    def images(self, inputs) -> Tensor:
        """Normalized images (B, 3, H, W) from BGR images (3, H, W) in [0, 255].

        Raises:
            ValueError: images of several sizes.
        """
        return self.tower.normalize(_stacked(inputs).flip(1).to(self.tower.dtype) / 255)

    def labels(self, data_samples) -> Tensor:
        """Positions in ``train_vocabulary`` (B, H, W) int64; 255 is ignored, unseen classes are 255 as well.

        Raises:
            ValueError: an id outside the labels' vocabulary; maps of several sizes.
        """
        labels = _stacked([sample.gt_sem_seg.data for sample in data_samples])[:, 0].long()
        names = self._labeled.names
        wrong = labels[((labels < 0) | (labels >= len(names))) & (labels != 255)].unique().tolist()
        if wrong:
            raise ValueError(
                f"the labels hold {wrong[:8]}, but the training vocabulary has the ids 0 to {len(names) - 1} (255 is "
                "ignored). Look at the data with `ovseg check-data CONFIG`."
            )
        if not self._unseen:
            return labels
        positions = {name: position for position, name in enumerate(self.train_vocabulary.names)}
        table = torch.full((256,), 255, device=labels.device)
        table[: len(names)] = torch.tensor([positions.get(name, 255) for name in names], device=labels.device)
        return table[labels]

    def dense_features(self, images: Tensor) -> DenseFeatures:
        return self.pipeline.features(images)

    def words(self) -> Tensor:
        """Unit text embeddings (T, E) of the training vocabulary, with gradients if the text tower is trained."""
        prompts = self.train_vocabulary.prompts
        if tune.trains(self.tower, "text"):
            return self.encoder().encode(prompts)
        if self._train_text is None:
            self._train_text = self.encoder()(prompts).clone()  # out of inference mode, so that losses may use it
        return self._train_text

    def by_class(self, scores: Tensor) -> Tensor:
        """Class scores (B, K, h, w) from prompt scores (B, T, h, w): the maximum over synonyms."""
        prompt_to_class = torch.tensor(self.train_vocabulary.prompt_to_class, device=scores.device)
        return max_over_synonyms(scores, prompt_to_class, len(self.train_vocabulary))

    def penalties(self) -> dict[str, Tensor]:
        """Loss terms of the presets."""
        terms = {f"loss_{type(preset).__name__.lower()}": preset.penalty() for preset in self.presets}
        return {name: value for name, value in terms.items() if value is not None}

    @abstractmethod
    def loss(self, inputs, data_samples) -> dict[str, Tensor]:
        """Terms by name, ``loss_…``; their sum is minimized."""


def _stacked(maps: Sequence[Tensor]) -> Tensor:
    sizes = {tuple(each.shape[1:]) for each in maps}
    if len(sizes) > 1:
        raise ValueError(
            f"training pictures of one batch have one size, got {sorted(sizes)}: end the pipeline with a crop and pad, "
            "dict(type='mmseg.RandomCrop', crop_size=(…)) and dict(type='Pad', size=(…), pad_val=dict(img=…, seg=255))."
        )
    return torch.stack(list(maps))
