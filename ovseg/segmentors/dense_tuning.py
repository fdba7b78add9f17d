"""Fine-tuning a few parameters of the tower for any training-free method: cross-entropy on its own scores.

ℓ = CE(τ·s, label),   s (B, K, h, w) the method's scores, enlarged bilinearly to the labels
"""

import torch.nn.functional as F

from ovseg.registry import MODELS

from .trainable import TrainableSegmentor


@MODELS.register_module()
class DenseTuning(TrainableSegmentor):
    """Cross-entropy over the prompts of the training vocabulary; τ is the protocol's ``logit_scale``.

    Args:
        **parts: see ``TrainableSegmentor``; without ``tuning``, only modules of the extractor and the scorer are
            trained.

    Raises:
        ValueError: nothing to train, or a scorer that returns probabilities.
    """

    name = "dense_tuning"

    def __init__(self, *args, **parts):
        super().__init__(*args, **parts)
        if not any(p.requires_grad for p in self.parameters()):
            raise ValueError(
                "DenseTuning has nothing to train: give presets, such as tuning=[dict(type='LoRA')]; there are those "
                "of ovseg/towers/tuning."
            )
        if self.pipeline.scorer.probabilities:
            raise ValueError(
                f"{type(self.pipeline.scorer).__name__} gives probabilities; DenseTuning trains on logits."
            )

    def loss(self, inputs, data_samples):
        images, labels = self.images(inputs), self.labels(data_samples)
        scores = self.by_class(self.pipeline.scorer(self.dense_features(images), self.words()))
        logits = F.interpolate(self.pipeline.protocol.logit_scale * scores, labels.shape[1:], mode="bilinear")
        valid = (labels != 255).sum().clamp(min=1)
        loss = F.cross_entropy(logits, labels, ignore_index=255, reduction="sum") / valid
        return {"loss_ce": loss} | self.penalties()
