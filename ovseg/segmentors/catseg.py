"""CAT-Seg: Cost Aggregation for Open-Vocabulary Semantic Segmentation (Cho, Shin et al., CVPR 2024): training.

L = mean over all classes and pixels of BCE(σ(z), y) = log(1 + exp z) − z·y,   y = 1 for the class of the pixel, else 0

Pixels without a class have target zero for every class, as in the reference, or are skipped.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.catseg.released import OURS
from ovseg.registry import MODELS
from ovseg.towers.export import save_tower

from .trainable import TrainableSegmentor

IGNORED = 255  # label of pixels without a class


def class_loss(logits: Tensor, labels: Tensor, ignore: str = "zero") -> Tensor:
    """L of logits (B, K, h, w), enlarged to labels (B, H, W).

    Args:
        logits: before the sigmoid.
        labels: class ids in [0, K), or 255 for none.
        ignore: target of pixels without a class: ``zero`` for all classes, or ``skip`` to exclude them from the mean.
    """
    logits = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=False)
    valid = labels != IGNORED
    own = logits.gather(1, labels.long().where(valid, 0)[:, None])[:, 0]  # z of the class of each pixel
    counted = torch.ones_like(valid) if ignore == "zero" else valid
    total = (F.softplus(logits).sum(1) * counted).sum() - (own * valid).sum()
    return total / (counted.sum() * logits.shape[1]).clamp(min=1)


@MODELS.register_module(name="CATSeg")  # as configs and checkpoints name it
class CATSegTraining(TrainableSegmentor):
    """Trains ``CostScore`` on ``CATSeg``'s features, and the parts of the towers that ``tuning`` selects.

    Images are resized to the protocol's ``view`` for the tower, as in prediction.

    Args:
        ignore: see ``class_loss``.
        train_classes: only the classes present in each image and random others, up to this number, enter the cost
            volume and the loss, each with its first name; our addition, to save time and memory with large
            vocabularies.  None: all classes, as in the paper.
        **parts: see ``TrainableSegmentor``.

    Raises:
        ValueError: unknown ``ignore``, ``train_classes`` below one.
    """

    name = "catseg"

    def __init__(self, *args, ignore: str = "zero", train_classes: int | None = None, **parts):
        super().__init__(*args, **parts)
        if ignore not in ("zero", "skip") or (train_classes is not None and train_classes < 1):
            raise ValueError(
                f"CATSeg: ignore is zero or skip, train_classes a positive number or None; got ignore={ignore!r}, "
                f"train_classes={train_classes!r}."
            )
        self.ignore, self.train_classes = ignore, train_classes

    def loss(self, inputs, data_samples) -> dict[str, Tensor]:
        """``loss_classes``, and the penalties of presets."""
        labels, text = self.labels(data_samples), self.words()
        dense = self.pipeline.features(self.images(inputs))
        if self.train_classes is None:
            logits = self.by_class(self.pipeline.scorer(dense, text))
        else:
            prompt_to_class = self.train_vocabulary.prompt_to_class
            first = torch.tensor([prompt_to_class.index(k) for k in range(prompt_to_class[-1] + 1)], device=text.device)
            sampled = some_classes(labels, len(first), self.train_classes)
            logits = self.pipeline.scorer(dense, text[first[sampled]][:, :, None])
            labels = torch.stack([positions_in(label, ids) for label, ids in zip(labels, sampled, strict=True)])
        return {"loss_classes": class_loss(logits, labels, self.ignore)} | self.penalties()

    def export(self, path: str | Path):
        """One file for prediction: the tuned CLIP in OpenAI's names and the aggregation, for ``weights`` and
        ``checkpoint`` alike, with its prediction settings."""
        exported = ("size", "short_side", "window", "stride", "view", "whole_view", "templates", "normalization")
        protocol = {name: getattr(self.pipeline.protocol, name) for name in exported}
        scorer = self.pipeline.scorer
        head = {f"{OURS}{name}": tensor for name, tensor in scorer.state_dict().items()}
        dense = {name: getattr(self.pipeline.dense, name) for name in ("relations", "residual", "ffn", "last_n")}
        notes = {"aggregation": scorer.transformer.settings, "dense": dense}
        save_tower(self.tower, path, Path(path).stem, protocol, head, notes)


def positions_in(label: Tensor, ids: Tensor) -> Tensor:
    """The positions in sorted ``ids`` of the class ids of a label map; 255 is kept."""
    return torch.searchsorted(ids, label.contiguous()).where(label != IGNORED, IGNORED)


def some_classes(labels: Tensor, classes: int, most: int) -> Tensor:
    """For each label map of (B, H, W), sorted ids (B, S) of the classes it contains and of random others.

    S is ``most``, or the largest number of classes in a map if that is more.
    """
    present = [label[label != IGNORED].unique() for label in labels]
    size = min(classes, max(most, *map(len, present)))
    chosen = []
    for own in present:
        others = torch.randperm(classes).to(own.device)
        others = others[~torch.isin(others, own)][: size - len(own)]
        chosen.append(torch.cat([own, others]).sort().values)
    return torch.stack(chosen)
