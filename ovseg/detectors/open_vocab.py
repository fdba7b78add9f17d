"""Training-free detection as an MMEngine model: the same engine as ``ovseg.load_detector``."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from ovseg.predict.box_settings import BoxSettings
from ovseg.predict.build import assemble
from ovseg.predict.detect import DenseDetector
from ovseg.predict.name_boxes import BoxNamer
from ovseg.predict.protocol import digest
from ovseg.registry import MODELS
from ovseg.results.provenance import Provenance
from ovseg.text.vocabulary import Vocabulary
from ovseg.towers import Tower


class DenseBoxes(BaseModel):
    """What detection and naming of boxes share: tower, extractor, words, conditions.

    Pictures come as the loader gives them (uint8, BGR, native size): resizing, windows and normalization are part of
    the protocol, so the dataset pipeline has none of them.

    Args:
        vocabulary: the words, anything ``Vocabulary.parse`` takes; class ids are label ids.
        boxes: settings of ``BoxSettings``.
        dense, weights, published, scorer, arch, quick_gelu: see ``ovseg.predict.build.assemble``; ``weights`` may be a
            tower.
        protocol: settings that override all others, those of the weights too.

    Raises:
        ValueError: unknown settings, words or weights.
    """

    def __init__(
        self,
        dense: dict,
        vocabulary,
        weights: str | Tower | None = None,
        published: dict | None = None,
        protocol: dict | None = None,
        boxes: dict | None = None,
        scorer: dict | None = None,
        arch: str | None = None,
        quick_gelu: bool | None = None,
    ):
        super().__init__(data_preprocessor=BaseDataPreprocessor())
        protocol = dict(refine=()) | (protocol or {})
        parts = dict(published=published, settings=protocol, scorer=scorer, arch=arch, quick_gelu=quick_gelu)
        pipeline = assemble(dense, weights, **parts)
        self.engine = DenseDetector(pipeline, BoxSettings(**(boxes or {})))
        self.vocabulary = Vocabulary.parse(vocabulary)
        self._words = None

    @property
    def provenance(self) -> Provenance:
        """What predictions are made with."""
        return self.engine.provenance(self.vocabulary)

    def forward(self, inputs, data_samples=None, mode: str = "predict"):
        """``predict``, the only mode.

        Raises:
            RuntimeError: another mode.
        """
        if mode != "predict":
            raise RuntimeError(f"{type(self).__name__} is training-free: there is no mode {mode!r}; use ovseg test.")
        return self.predict(inputs, data_samples)

    def predict(self, inputs, data_samples: Sequence[DetDataSample]):
        """``pred_instances`` of each sample, in pixels of the picture.

        Args:
            inputs: list of (3, H, W) uint8 BGR pictures.
            data_samples: one each.
        """
        if self._words is None:
            self._words = self.engine.read(self.vocabulary)
        for picture, sample in zip(inputs, data_samples, strict=True):
            rgb = np.ascontiguousarray(picture.flip(0).permute(1, 2, 0).cpu().numpy())
            sample.pred_instances = self.answer(self.engine.encode(rgb), sample)
            sample.set_metainfo({"provenance": self.provenance})
        return data_samples


@MODELS.register_module()
class OpenVocabDetector(DenseBoxes):
    """Boxes with masks for any words from any extractor; scored by ``OpenVocabAP``."""

    metric = "OpenVocabAP"

    def answer(self, picture, sample: DetDataSample) -> InstanceData:
        """``bboxes``, ``scores``, ``labels``, and ``masks`` as COCO's run lengths."""
        found = self.engine.decode(picture, self._words)
        answer = InstanceData(bboxes=found.boxes, scores=found.scores, labels=found.labels)
        answer.masks = found.masks
        return answer


@MODELS.register_module()
class BoxClassifier(DenseBoxes):
    """What is in the true boxes?  Class probabilities of given regions; scored by ``BoxAccuracy``.

    Args:
        readouts, margins: see ``ovseg.predict.name_boxes.BoxNamer``.
        **shared: see ``DenseBoxes``.

    Raises:
        ValueError: unknown read-outs; a sample without true boxes.
    """

    metric = "BoxAccuracy"

    def __init__(self, *args, readouts: Sequence[str] = ("roi",), margins: Sequence[float] = (1.0,), **shared):
        super().__init__(*args, **shared)
        self.namer = BoxNamer(self.engine, readouts, margins)

    @property
    def provenance(self) -> Provenance:
        base = super().provenance
        protocol = dict(base.protocol) | self.namer.settings
        return replace(base, protocol=protocol, fingerprint=digest(protocol | {"fingerprint": ""}))

    def answer(self, picture, sample: DetDataSample) -> InstanceData:
        """``class_scores`` (R, K) of the true boxes, in their order."""
        if "gt_instances" not in sample:
            raise ValueError(f"BoxClassifier names the true boxes, and {sample.get('img_path')} comes without.")
        truth = sample.gt_instances
        boxes = getattr(truth.bboxes, "tensor", truth.bboxes)
        masks = torch.from_numpy(truth.masks.to_ndarray()).bool() if "masks" in truth else None
        scores: Tensor = self.namer(picture, self._words, boxes, masks)
        return InstanceData(class_scores=scores)
