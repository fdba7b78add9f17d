"""EdaDet: Open-Vocabulary Object Detection Using Early Dense Alignment (Shi and Yang, ICCV 2023).

This is our interpretation of the published description, not a reproduction: there is no public code, and the number of
layers, the weights and the exponents below are [inferred].

V   dense map of a CLIP ResNet: value and output projection of its attention pool at every position, (B, E, h, w)
D   = V + Δ(V), Δ a few zero-initialized convolutions on the finer third stage                           [inferred]
p_l = softmax_k(cos(D_l, t_k)/τ) at every location l, over classes and background prompts
P_r = mean over 7×7 RoIAlign bins of p in box r                   the object score is pooled *predictions*
L   = focal CE of P_r for base objects r, so that every location inside answers for the object           [inferred]
s   = P_r^(1−α)·Q_r^α · o_r,   Q as P with the frozen V; o_r the objectness of independent class-agnostic proposals

Early alignment means that text is compared with locations before they are grouped into objects.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.argmax import max_over_synonyms
from ovseg.regions.pooling import pool_boxes
from ovseg.registry import MODELS
from ovseg.score.ensemble import geometric_ensemble
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import Tower, load_tower

from .proposals import build_proposals, tensor
from .regionclip import ResNetDetector
from .regionclip_head import select_boxes

BINS = 7


def value_map(tower: Tower, stage: Tensor) -> Tensor:
    """V (B, E, h, w): value and output projection at every position of the last stage (B, D, h, w)."""
    pool = tower.visual.attnpool
    values = pool.c_proj(pool.v_proj(stage.flatten(2).transpose(1, 2)))
    return values.transpose(1, 2).unflatten(2, stage.shape[-2:])


def dense_probabilities(features: Tensor, text: Tensor, prompt_to_class: Tensor, temperature: float) -> Tensor:
    """p (B, K, h, w) from a map (B, E, h, w), unit text embeddings (T, E) and their classes (T,), in float32."""
    cosines = torch.einsum("behw,te->bthw", F.normalize(features.float(), dim=1), text)
    return max_over_synonyms(cosines / temperature, prompt_to_class, int(prompt_to_class.max()) + 1).softmax(1)


def pooled(probabilities: Tensor, boxes: Sequence[Tensor], image_size: tuple[int, int]) -> Tensor:
    """P (ΣR, K): the mean of 7×7 bins of (B, K, h, w) for boxes (R_b, 4) in pixels."""
    return pool_boxes(probabilities, boxes, image_size, BINS).mean((2, 3))


def object_loss(scores: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean of −(1 − P_y)^γ log P_y over objects (R, K) with labels (R,); zero without objects."""
    if not len(labels):
        return scores.sum()
    right = scores.gather(1, labels[:, None]).clamp(1e-6, 1)
    return (-((1 - right) ** gamma) * right.log()).mean()


class Refiner(nn.Module):
    """Δ: 3×3 convolutions on the third stage (B, C, 2h, 2w) and the map."""

    def __init__(self, channels: int, embed_dim: int, width: int = 256, depth: int = 2):
        super().__init__()
        self.finer, self.coarser = nn.Conv2d(channels, width, 1), nn.Conv2d(embed_dim, width, 1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.out = nn.Conv2d(width, embed_dim, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, dense: Tensor, finer: Tensor) -> Tensor:
        """(B, E, h, w) on the grid of the finer stage."""
        size = finer.shape[-2:]
        x = self.finer(finer) + F.interpolate(self.coarser(dense), size, mode="bilinear", align_corners=False)
        for layer in self.layers:
            x = x + layer(x.relu())
        return F.interpolate(dense, size, mode="bilinear", align_corners=False) + self.out(x.relu())


@MODELS.register_module()
class EdaDet(ResNetDetector):
    """Dense predictions, grouped by class-agnostic boxes.

    Args:
        vocabulary: classes of the training labels; ``set_classes`` replaces them in prediction.
        weights: a CLIP ResNet with a text tower, see ``ovseg.towers.weights``. It is frozen.
        proposals: see ``detectors.proposals``; an RPN in place of the paper's query decoder [inferred].
        unseen: names hidden from training: neither their instances nor their prompts are used.
        background: names of background, which compete at every location [inferred].
        alpha: α, weight of the frozen tower's score [inferred].
        temperature: τ [inferred].
        gamma: exponent of the focal loss [inferred].
        refiner: arguments of ``Refiner``.
        test_cfg: ``score_thr``, ``nms``, ``max_per_img``.
        templates, data_preprocessor: see ``RegionCLIP``.

    Raises:
        ValueError: unsuitable names or weights; α outside [0, 1].
    """

    name = "edadet"
    loader = "TrainedDetector"

    def __init__(
        self,
        vocabulary,
        weights: str | Tower | None = None,
        proposals: dict | None = None,
        unseen: str | Sequence[str] = (),
        background: Sequence[str] = ("background",),
        alpha: float = 0.3,
        temperature: float = 0.01,
        gamma: float = 2.0,
        refiner: dict | None = None,
        test_cfg: dict | None = None,
        templates="imagenet_80",
        data_preprocessor: dict | None = None,
    ):
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is the share of the frozen score, from 0 to 1; got {alpha}.")
        tower = weights if isinstance(weights, Tower) else load_tower(weights)
        super().__init__(tower, vocabulary, unseen, templates, None, 5, False, data_preprocessor)
        tower.requires_grad_(False)
        self.alpha, self.temperature, self.gamma, self.background = alpha, temperature, gamma, tuple(background)
        self.test_cfg = dict(score_thr=0.001, nms=dict(type="nms", iou_threshold=0.5), max_per_img=100)
        self.test_cfg |= dict(test_cfg or {})
        self.refiner = Refiner(tower.width // 2, tower.embed_dim, **(refiner or {}))
        self._templates = str(templates)
        self.proposals = build_proposals(proposals, tower)

    @property
    def settings(self) -> dict:
        own = dict(alpha=self.alpha, temperature=self.temperature, templates=self._templates)
        return own | self.test_cfg | {"background": list(self.background)}

    def maps(self, stages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """V (B, E, h, w) and D (B, E, 2h, 2w)."""
        with torch.no_grad():
            dense = value_map(self.tower, self.tower.visual.layer4(stages[-1]))
        return dense, self.refiner(dense, stages[-1])

    def loss(self, batch_inputs: Tensor, batch_data_samples) -> dict[str, Tensor]:
        samples = self.without_hidden(batch_data_samples)
        stages = self.extract_feat(batch_inputs)
        text, prompt_to_class, positions = self.text(training=True)
        size = tuple(batch_inputs.shape[-2:])
        boxes = [tensor(sample.gt_instances.bboxes).float() for sample in samples]
        labels = positions[torch.cat([sample.gt_instances.labels for sample in samples])]
        p = dense_probabilities(self.maps(stages)[1], text, prompt_to_class, self.temperature)
        loss = object_loss(pooled(p, boxes, size), labels, self.gamma)
        return self.proposals.loss(stages, samples) | {"loss_object": loss}

    def text(self, training: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """Text embeddings (T, E) and classes (T,), background last; in training also the position (K,) of each
        label."""
        vocabulary = self.train_vocabulary if training else self.vocabulary
        text, prompt_to_class = self.embeddings(vocabulary)
        positions = None
        if training and self.unseen:
            visible = ~self.hidden.to(prompt_to_class.device)
            positions = visible.cumsum(0) - 1
            text, prompt_to_class = text[visible[prompt_to_class]], positions[prompt_to_class[visible[prompt_to_class]]]
        elif training:
            positions = torch.arange(len(vocabulary), device=prompt_to_class.device)
        if self.background:
            apart, _ = self.embeddings(Vocabulary.parse(list(self.background)))
            first = int(prompt_to_class.max()) + 1
            numbers = torch.full((len(apart),), first, device=prompt_to_class.device)
            text, prompt_to_class = torch.cat([text, apart]), torch.cat([prompt_to_class, numbers])
        return text, prompt_to_class, positions

    def predict(self, batch_inputs: Tensor, batch_data_samples, rescale: bool = True, features=None):
        """``pred_instances`` of each sample: ``bboxes``, ``scores``, ``labels``.

        ``features`` are what ``extract_feat`` gave for the images, where it has run.
        """
        stages = self.extract_feat(batch_inputs) if features is None else features
        proposals = self.proposals(batch_inputs, stages, batch_data_samples)
        text, prompt_to_class, _ = self.text()
        boxes, size = [each.bboxes for each in proposals], tuple(batch_inputs.shape[-2:])
        frozen, refined = (
            pooled(dense_probabilities(each, text, prompt_to_class, self.temperature), boxes, size)
            for each in self.maps(stages)
        )
        objectness = torch.cat([each.scores for each in proposals])
        alike = torch.ones(refined.shape[1], dtype=torch.bool)  # one exponent for base and novel classes
        scores = geometric_ensemble(refined, frozen, alike, self.alpha, self.alpha) * objectness[:, None]
        scores = F.pad(scores[:, : len(self.vocabulary)], (0, 1))  # the column that MMDetection takes for background
        detections = []
        for each, part, sample in zip(boxes, scores.split([len(b) for b in boxes]), batch_data_samples, strict=True):
            detections.append(select_boxes(each, part, sample.metainfo, self.test_cfg, rescale))
            sample.set_metainfo({"provenance": self.provenance})
        return self.add_pred_to_datasample(batch_data_samples, detections)
