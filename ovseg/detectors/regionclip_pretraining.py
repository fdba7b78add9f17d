"""RegionCLIP: Region-based Language-Image Pretraining (Zhong et al., CVPR 2022): the pretraining.

student  f_r, the trained tower;  teacher g_r, the original tower, on the same regions;  concepts c, any vocabulary
L = KL(q ‖ student)  +  contrast of regions and concepts  +  InfoNCE of images and captions    (``regionclip_losses``)

The feature of an image is that of the region that covers it.  Boxes have no labels: concepts come from the teacher.
"""

import copy
from pathlib import Path

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ovseg.argmax import max_over_synonyms
from ovseg.regions import regionclip_losses as terms
from ovseg.regions.regionclip import region_features, region_logits, res_stages
from ovseg.registry import MODELS
from ovseg.segmentors.frozen_module import FrozenModule
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import Tower
from ovseg.towers.build import make_tower
from ovseg.towers.export import save_tower

from .proposals import build_proposals, scale_of, tensor
from .regionclip import ResNetDetector


@MODELS.register_module()
class RegionCLIPPretraining(ResNetDetector):
    """Trains a CLIP ResNet on regions; ``export`` writes it as plain CLIP weights.

    In prediction it classifies the ground-truth boxes of the samples, so that a run can be monitored.

    Args:
        concepts: the pool, anything ``Vocabulary.parse`` takes; published: nouns of the captions.
        vocabulary: the candidates of predictions; the concepts by default.
        weights: a CLIP ResNet with text, see ``ovseg.towers.weights``.
        proposals: where regions come from, see ``detectors.proposals``; published: ``FrozenRPN`` with an NMS of 0.5
            and 300 boxes. Labels are never read.
        most: how many of them are kept per image, drawn at random.
        threshold: of the teacher's best probability, below which a region is left out.
        captions: use the samples' metainfo ``gt_caption``, as MMDetection's caption datasets have it; False leaves
            the third term out.
        frozen_stages, temperature, templates, data_preprocessor: see ``RegionCLIP``.

    Raises:
        ValueError: words or weights that do not do; a tower that is no ResNet or has no text.
    """

    name = "regionclip_pretraining"
    metric = "BoxAccuracy"

    def __init__(
        self,
        concepts,
        vocabulary=None,
        weights: str | Tower | None = None,
        proposals: dict | None = None,
        most: int = 100,
        threshold: float = 0.1,
        captions: bool = True,
        frozen_stages: int = 2,
        temperature: float = 0.01,
        templates="imagenet_80",
        data_preprocessor: dict | None = None,
    ):
        super().__init__(weights, concepts, (), templates, None, frozen_stages, False, data_preprocessor)
        self.vocabulary = self.train_vocabulary if vocabulary is None else Vocabulary.parse(vocabulary)
        self.most, self.threshold, self.captions = most, threshold, captions
        self.temperature = temperature
        self._templates = str(templates)
        tower = self.tower
        self.proposals = build_proposals(proposals or dict(type="RandomBoxes", count=most), tower)
        self.teacher = FrozenModule(make_tower(copy.deepcopy(tower.visual), None, tower.preprocess, tower.card))

    @property
    def settings(self) -> dict:
        return dict(setting="ground_truth", temperature=self.temperature, templates=self._templates)

    def loss(self, batch_inputs: Tensor, batch_data_samples) -> dict[str, Tensor]:
        """``loss_distillation``, ``loss_contrast``, ``loss_image_text``, and the share of regions that were kept.

        Raises:
            ValueError: a sample without boxes or caption, where they are wanted.
        """
        stages = self.extract_feat(batch_inputs)
        boxes = [self._some(each.bboxes) for each in self.proposals(batch_inputs, stages, batch_data_samples)]
        wholes = [batch_inputs.new_tensor([[0, 0, *self._size(sample)[::-1]]]) for sample in batch_data_samples]
        concepts, _ = self.embeddings(self.train_vocabulary)
        student = region_features(self.tower, stages[-1], boxes)
        with torch.no_grad():
            teacher = self.teacher._held[0]
            target = region_features(teacher, res_stages(teacher, batch_inputs)[-1], boxes)
        keep, labels, q = terms.pseudo_labels(target, concepts, self.temperature, self.threshold)
        student, tau = student[keep], self.temperature
        losses = {
            "loss_distillation": terms.distillation(student, concepts, q, tau),
            "loss_contrast": terms.concept_contrast(student, concepts, labels, tau),
            "kept": keep.float().mean(),
        }
        if self.captions:
            pictures = region_features(self.tower, stages[-1], wholes)
            losses["loss_image_text"] = terms.image_text(pictures, self.encode_captions(batch_data_samples), tau)
        return losses

    def _some(self, boxes: Tensor) -> Tensor:
        return boxes[torch.randperm(len(boxes))[: self.most].to(boxes.device)]

    @staticmethod
    def _size(sample) -> tuple[int, int]:
        return tuple(sample.metainfo["img_shape"][:2])

    @torch.no_grad()
    def encode_captions(self, data_samples) -> Tensor:
        """Embeddings (B, E) of the captions.

        Raises:
            ValueError: a sample without one.
        """
        captions = [sample.metainfo.get("gt_caption") for sample in data_samples]
        if None in captions:
            raise ValueError(
                "the image-text loss reads the metainfo 'gt_caption' of every sample, and one has none: add it to "
                "meta_keys of dict(type='mmdet.PackDetInputs'), or write captions=False."
            )
        tokens = self._encoder.tokenizer(captions).to(self.tower.device)  # longer captions are cut
        return self.tower.clip.encode_text(tokens).float()

    @torch.no_grad()
    def predict(self, batch_inputs: Tensor, batch_data_samples, rescale: bool = True):
        """Name the ground-truth boxes: ``pred_instances`` with their ``bboxes``, ``class_scores`` (logits, R × K),
        ``scores`` and ``labels``."""
        annotated = [
            tensor(sample.gt_instances.bboxes).float().to(batch_inputs.device) for sample in batch_data_samples
        ]
        boxes = [b * b.new_tensor(scale_of(s)) for b, s in zip(annotated, batch_data_samples, strict=True)]
        features = region_features(self.tower, self.extract_feat(batch_inputs)[-1], boxes)
        text, prompt_to_class = self.embeddings(self.vocabulary)
        words = region_logits(features, text, self.temperature)[:, :-1]
        logits = max_over_synonyms(words.T[None, :, :, None], prompt_to_class, len(self.vocabulary))[0, :, :, 0].T
        scores, labels = logits.softmax(-1).max(-1)
        counts = [len(each) for each in boxes]
        parts = zip(batch_data_samples, annotated, *(v.split(counts) for v in (scores, labels, logits)), strict=True)
        for sample, where, score, label, each in parts:
            sample.pred_instances = InstanceData(bboxes=where, scores=score, labels=label, class_scores=each)
            sample.set_metainfo({"provenance": self.provenance})
        return batch_data_samples

    def export(self, path: str | Path):
        """Write the student as CLIP weights."""
        save_tower(self.tower, path, Path(path).stem)
