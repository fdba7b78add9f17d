"""MaskCLIP+ of Extract Free Dense Labels from CLIP (Zhou, Loy and Dai, ECCV 2022).

A frozen extractor labels images on the fly, and any segmentor of MMSegmentation is trained on these labels.

y_p ← argmax_{c ∈ U} s_c(p)     at pixels p without a label, U the classes without labels
guided         s: the extractor's scores (cosines; with prompt denoising and key smoothing by ``DenoisedScore``)
self-training  s: the student's own logits, once it is better than its teacher
uncertain      max_{c ∈ U} softmax(τ·s)_c(p) < t → p stays without label and is ignored
L = L_student(y)  [+ λ·mean |f̂_teacher − f̂_student|]

U is all classes (annotation-free) or the unseen ones (zero-shot: labels of seen classes are real).
"""

import contextlib

import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from ovseg.argmax import max_over_synonyms
from ovseg.registry import MODELS
from ovseg.towers import IMAGENET

from .frozen_module import FrozenModule

IGNORED = 255


@MODELS.register_module()
class MaskCLIPPlus(BaseSegmentor):
    """A student segmentor and the extractor that provides its labels during chosen phases.

    The batch is preprocessed by MMSegmentation's ``SegDataPreProcessor`` for the student.  Labels of 255 stay ignored;
    an image without any label map (a pipeline without ``LoadAnnotations``) is labeled everywhere.

    Args:
        student: config of a segmentor.  ``MaskCLIPPlusHead`` builds its decode head.
        teacher: arguments of ``OpenVocabSegmentor`` except the vocabulary: ``dict(dense=dict(type="MaskCLIP"),
            weights=…, scorer=…)``.  It gets images normalized with the statistics of its weights; the reference trains
            with those of ImageNet, ``protocol=dict(normalization="imagenet")``.
        vocabulary: the classes; ids are label ids.
        unseen: names of the classes whose labels must not be used; None: all of them.
        guided: [a, b) of the iterations, counted from 1, with labels from the teacher; b = −1: to the end; None: never.
        self_training: [a, b) of the iterations with labels from the student.
        conf_thresh: t in [0, 1]; 0 keeps every label.
        distillation: λ.
        reset_counter: restart the count when a checkpoint is loaded; for ``load_from``, not for resumed runs.
        data_preprocessor: see MMSegmentation.

    The number of iterations is a buffer, so a resumed run continues in its phase.  The teacher is not part of the
    state: checkpoints contain the student only.

    Raises:
        ValueError: phases that overlap or are not ranges, t outside [0, 1], an unknown class; a student without text
            space for distillation.
    """

    name = "maskclip_plus"

    def __init__(
        self,
        student: dict,
        teacher: dict,
        vocabulary,
        unseen=None,
        guided: tuple[int, int] | None = (1, -1),
        self_training: tuple[int, int] | None = None,
        conf_thresh: float = 0.0,
        distillation: float = 0.0,
        reset_counter: bool = False,
        data_preprocessor: dict | None = None,
    ):
        super().__init__(data_preprocessor=data_preprocessor)
        self.student = MMSEG_MODELS.build(ConfigDict({**student, "_scope_": "mmseg"}))
        own = dict(type="OpenVocabSegmentor", published=dict(normalization="weights"), vocabulary=vocabulary)
        self.teacher = FrozenModule(MODELS.build(own | dict(teacher)))
        self.vocabulary = self.teacher.vocabulary
        names = self.vocabulary.names if unseen is None else unseen
        unseen = sorted({self.vocabulary.index(name) for name in names})
        self.register_buffer("unseen", torch.tensor(unseen), persistent=False)
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long))
        self.guided, self.self_training = _phase("guided", guided), _phase("self_training", self_training)
        if max(self.guided[0], self.self_training[0]) < min(self.guided[1], self.self_training[1]):
            raise ValueError(
                f"guided={guided} and self_training={self_training} overlap: an iteration has one source of labels. "
                "The paper's zero-shot schedule is guided=(1, 4000), self_training=(4000, -1) of 40000."
            )
        if not 0 <= conf_thresh <= 1:
            raise ValueError(f"conf_thresh is a probability, got {conf_thresh}.")
        self.conf_thresh, self.distillation, self.reset_counter = conf_thresh, distillation, reset_counter
        if distillation and not hasattr(self.last_head, "conv_seg"):
            raise ValueError(
                "distillation compares the teacher's features with those that enter the student's last layer, and "
                f"{type(self.last_head).__name__} has no conv_seg. Use decode_head=dict(type='ovseg.MaskCLIPPlusHead', "
                "head=…)."
            )

    @property
    def last_head(self) -> nn.Module:
        """The head that makes the prediction (the last of a cascade)."""
        head = self.student.decode_head
        return head[-1] if isinstance(head, nn.ModuleList) else head

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        if self.reset_counter:
            self.iteration.zero_()

    # --- labels ----------------------------------------------------------------------------------------------------

    def known_labels(self, inputs: Tensor, data_samples) -> Tensor:
        """Labels (B, H, W) that may be used: real ones of seen classes, 255 ignored, −1 without label."""
        labels = []
        for picture, sample in zip(inputs, data_samples, strict=True):
            if "gt_sem_seg" in sample:
                annotated = sample.gt_sem_seg.data[0].long()
                labels.append(annotated.masked_fill(torch.isin(annotated, self.unseen), -1))
                continue
            known = torch.full(picture.shape[1:], IGNORED, dtype=torch.long, device=picture.device)
            _, right, _, bottom = sample.metainfo.get("padding_size", (0, 0, 0, 0))
            known[: known.shape[0] - bottom, : known.shape[1] - right] = -1
            labels.append(known)
        return torch.stack(labels)

    def pictures(self, inputs: Tensor) -> Tensor:
        """The batch normalized for the teacher, with the student's normalization undone."""
        tower, process = self.teacher.pipeline.tower, self.data_preprocessor
        rgb = inputs
        if getattr(process, "_enable_normalize", False):
            rgb = inputs * process.std + process.mean
        if not getattr(process, "_channel_conversion", False):
            rgb = rgb.flip(1)
        imagenet = self.teacher.pipeline.protocol.normalization == "imagenet"
        return tower.normalize(rgb.to(tower.dtype) / 255, IMAGENET if imagenet else None)

    def choose(self, scores: Tensor, scale: float) -> Tensor:
        """Class ids (B, H, W) of scores (B, |U|, H, W); −1 where the best is uncertain."""
        labels = self.unseen[scores.argmax(1)]
        if self.conf_thresh:
            sure = (scale * scores).softmax(1).amax(1) if scale else scores.amax(1)
            labels = labels.masked_fill(sure < self.conf_thresh, -1)
        return labels

    def teacher_labels(self, dense, size: tuple[int, int]) -> Tensor:
        """Labels (B, H, W) from the extractor's features."""
        text, classes = self.teacher._words(self.unseen.tolist())
        scorer = self.teacher.pipeline.scorer
        order = torch.searchsorted(self.unseen, torch.tensor(list(classes), device=self.unseen.device))
        scores = max_over_synonyms(scorer(dense, text), order, len(self.unseen))
        left, top, right, bottom = dense.padding
        padded = (size[0] + top + bottom, size[1] + left + right)
        scores = F.interpolate(scores, padded, mode="bilinear", align_corners=False)
        return self.choose(scores[..., top : top + size[0], left : left + size[1]], 0 if scorer.probabilities else 100)

    def student_labels(self, inputs: Tensor) -> Tensor:
        """Labels (B, H, W) from the student in evaluation mode."""
        was = self.student.training
        self.student.eval()
        size = inputs.shape[2:]
        metas = [dict(ori_shape=size, img_shape=size, pad_shape=size, padding_size=[0] * 4)] * len(inputs)
        logits = self.student.encode_decode(inputs, metas)
        self.student.train(was)
        return self.choose(logits[:, self.unseen], 1)

    # --- MMSegmentation's side -------------------------------------------------------------------------------------

    def loss(self, inputs: Tensor, data_samples) -> dict[str, Tensor]:
        self.iteration += 1
        now, size = int(self.iteration), tuple(inputs.shape[2:])
        guided = self.guided[0] <= now < self.guided[1]
        with torch.no_grad():
            labels = self.known_labels(inputs, data_samples)
            pipeline = self.teacher.pipeline
            dense = pipeline.dense(pipeline.tower, self.pictures(inputs)) if guided or self.distillation else None
            if guided:
                labels = labels.where(labels >= 0, self.teacher_labels(dense, size))
            elif self.self_training[0] <= now < self.self_training[1]:
                labels = labels.where(labels >= 0, self.student_labels(inputs))
            labels = labels.masked_fill(labels < 0, IGNORED)
        samples = []
        for sample, label in zip(data_samples, labels, strict=True):
            samples.append(sample.new())
            samples[-1].gt_sem_seg = PixelData(data=label[None])
        with self._features() if self.distillation else contextlib.nullcontext([]) as seen:
            losses = self.student.loss(inputs, samples)
        if self.distillation:
            losses["loss_distillation"] = self.distillation * self.distance(dense, seen[-1], size)
        return losses

    @contextlib.contextmanager
    def _features(self):
        """Records the input of the student's last layer."""
        seen = []
        handle = self.last_head.conv_seg.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            yield seen
        finally:
            handle.remove()

    @staticmethod
    def distance(dense, student: Tensor, size: tuple[int, int]) -> Tensor:
        """mean |f̂_teacher − f̂_student| on the student's grid."""
        left, top, right, bottom = dense.padding
        padded = (size[0] + top + bottom, size[1] + left + right)
        teacher = dense.features.float()
        if any(dense.padding):
            teacher = F.interpolate(teacher, padded, mode="bilinear", align_corners=False)
            teacher = teacher[..., top : top + size[0], left : left + size[1]]
        teacher = F.interpolate(teacher, student.shape[2:], mode="bilinear", align_corners=False)
        return F.l1_loss(F.normalize(student.float(), dim=1), F.normalize(teacher, dim=1))

    def predict(self, inputs, data_samples=None):
        return self.student.predict(inputs, data_samples)

    def extract_feat(self, inputs):
        return self.student.extract_feat(inputs)

    def encode_decode(self, inputs, batch_data_samples):
        return self.student.encode_decode(inputs, batch_data_samples)

    def _forward(self, inputs, data_samples=None):
        return self.student._forward(inputs, data_samples)


def _phase(name: str, span) -> tuple[float, float]:
    """[a, b) with infinity for no end; an empty range for None.

    Raises:
        ValueError: not two numbers, or an end before the start.
    """
    if span is None:
        return (0, 0)
    if len(span) != 2 or span[0] < 1 or (span[1] != -1 and span[1] <= span[0]):
        raise ValueError(f"{name} is (first, end) with first from 1 on and end beyond it, or -1; got {tuple(span)}.")
    return span[0], float("inf") if span[1] == -1 else span[1]
