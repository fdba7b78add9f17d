"""CLIPSelf: Vision Transformer Distills Itself for Open-Vocabulary Dense Prediction (Wu et al., ICLR 2024), training.

s_r = RoIAlign(m / |m|, box r),   m the student's dense map (``dense.CLIPSelf``)
t_r = image embedding of the crop of box r by the teacher, the original tower
ℓ = 1 − mean_r cos(s_r, t_r)
θ = a θ_student + (1 − a) θ_teacher in the exported file; training continues from the student

Neither labels nor text are used.  Regions are cells of random grids or boxes of the samples (``regions.clipself``).
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.regions.clipself import cosine_loss, draw_boxes, draw_cells, fitted_crops
from ovseg.regions.pooling import pool_boxes
from ovseg.registry import MODELS
from ovseg.segmentors.frozen_module import FrozenModule
from ovseg.segmentors.trainable import TrainableSegmentor
from ovseg.towers import Tower, load_tower
from ovseg.towers.export import save_tower
from ovseg.towers.tuning import plain_state

SOURCES = ("grid", "boxes")


@MODELS.register_module(name="CLIPSelf")  # as configs and checkpoints name it
class CLIPSelfTraining(TrainableSegmentor):
    """Trains the image tower; ``export`` writes it, averaged with the teacher, as plain CLIP weights.

    Images of a batch may differ in size: they are padded with black at the right and bottom, and the padding of a
    pipeline (``img_shape`` of a sample) belongs to no region.  It predicts label maps of ``vocabulary`` from the
    student's dense features, as ``OpenVocabSegmentor`` does, so that a run can be monitored.

    Args:
        dense: config of the extractor, ``dict(type="CLIPSelf")``.
        weights, arch, quick_gelu: see ``OpenVocabSegmentor``.
        regions: ``grid``, or ``boxes``: those of ``proposals``, else of ``gt_instances``, in pixels of the image as
            it is given.
        max_split, most: largest number of grid cells per side, and of regions per image.
        sides: smallest and largest area of boxes, as sides of squares in pixels.
        enlarge: enlargement of the crops; the authors use 1.5 with boxes, 1 with grids.
        share: a, weight of the student in the exported file; the authors use 0.7 for ViT-B/16 and 0.95 for ViT-L/14.
        crop_batch: crops per forward pass of the teacher.
        tuning: what is trained, all blocks by default.
        **parts: see ``TrainableSegmentor``.

    Raises:
        ValueError: an unknown source of regions, numbers out of range, and what ``TrainableSegmentor`` raises.
    """

    name = "clipself"
    metric = None

    def __init__(
        self,
        *args,
        weights: str | Tower | None = None,
        arch: str | None = None,
        quick_gelu: bool | None = None,
        regions: str = "grid",
        max_split: int = 6,
        most: int = 20,
        sides: tuple[float, float] = (8, 1024),
        enlarge: float = 1.0,
        share: float = 0.7,
        crop_batch: int = 64,
        tuning=(dict(type="Blocks"),),
        **parts,
    ):
        tower = weights if isinstance(weights, Tower) else load_tower(weights, arch=arch, quick_gelu=quick_gelu)
        teacher = tower.around(copy.deepcopy(tower.visual))  # before anything trains
        super().__init__(*args, weights=tower, tuning=tuning, **parts)
        if regions not in SOURCES or min(max_split, most, crop_batch) < 1 or enlarge < 1 or not 0 <= share <= 1:
            raise ValueError(
                f"CLIPSelf: regions are {' or '.join(SOURCES)}, max_split, most, crop_batch and enlarge at least 1, "
                f"share from 0 to 1; got {regions!r}, {max_split}, {most}, {crop_batch}, {enlarge}, {share}."
            )
        self.regions, self.max_split, self.most, self.sides = regions, max_split, most, tuple(sides)
        self.enlarge, self.share, self.crop_batch = enlarge, share, crop_batch
        self.teacher = FrozenModule(teacher)

    def loss(self, inputs, data_samples) -> dict[str, Tensor]:
        pictures, sizes = self.pictures(inputs, data_samples)
        boxes = [self.boxes(sample, size) for sample, size in zip(data_samples, sizes, strict=True)]
        maps = F.normalize(self.dense_features(self.tower.normalize(pictures)).features, dim=1)
        student = pool_boxes(maps, boxes, pictures.shape[2:])
        size = self.teacher.image_size
        crops = [
            fitted_crops(picture[:, :h, :w], each, size, self.enlarge)
            for picture, (h, w), each in zip(pictures, sizes, boxes, strict=True)
        ]
        return {"loss_cosine": cosine_loss(student, self.read_crops(torch.cat(crops)))} | self.penalties()

    def pictures(self, inputs, data_samples) -> tuple[Tensor, list[tuple[int, int]]]:
        """RGB in [0, 1] (B, 3, H, W), whole patches, and the size (h, w) in pixels of each image in it."""
        sizes = [
            tuple(map(min, x.shape[1:], sample.metainfo.get("img_shape", x.shape[1:])[:2]))
            for x, sample in zip(inputs, data_samples, strict=True)
        ]
        height, width = (max(x.shape[i] for x in inputs) for i in (1, 2))
        height, width = (length + -length % self.tower.stride for length in (height, width))
        padded = [F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in inputs]
        return torch.stack(padded).flip(1).to(self.tower.dtype) / 255, sizes

    def boxes(self, sample, size: tuple[int, int]) -> Tensor:
        """Regions (R, 4) of one image, x1, y1, x2, y2 in pixels.

        Raises:
            ValueError: a sample without the required boxes.
        """
        if self.regions == "grid":
            return draw_cells(size, self.max_split, self.most).to(self.tower.device)
        source = next((sample.get(name) for name in ("proposals", "gt_instances") if name in sample), None)
        if source is None or "bboxes" not in source:
            raise ValueError(
                "CLIPSelf(regions='boxes') takes the boxes of its samples, but one has neither proposals nor "
                "gt_instances: load them (dict(type='mmdet.LoadProposals') or dict(type='mmdet.LoadAnnotations', "
                "with_bbox=True)) and end the pipeline with dict(type='mmdet.PackDetInputs'); or take regions='grid'."
            )
        annotated = source.bboxes if isinstance(source.bboxes, Tensor) else source.bboxes.tensor
        return draw_boxes(annotated, size, self.sides, self.most).to(self.tower.device)

    @torch.no_grad()
    def read_crops(self, crops: Tensor) -> Tensor:
        """The teacher's image embeddings (R, E) of crops (R, 3, S, S), RGB in [0, 1]."""
        return torch.cat([self.teacher(self.tower.normalize(part))[0] for part in crops.split(self.crop_batch)])

    @torch.no_grad()
    def averaged(self, share: float | None = None) -> Tower:
        """A copy of the tower with the image side a θ_student + (1 − a) θ_teacher.

        Raises:
            ValueError: a tower with parameters that the teacher does not have.
        """
        share = self.share if share is None else share
        visual = copy.deepcopy(self.teacher.visual)
        ours, theirs = plain_state(self.tower.visual), visual.state_dict()
        if ours.keys() != theirs.keys():
            surplus = ", ".join(sorted(ours.keys() ^ theirs.keys())[:3])
            raise ValueError(
                f"CLIPSelf averages the weights of student and teacher, and only one of them has {surplus}: train with "
                "presets that change weights, such as Blocks, Everything or LoRA."
            )
        mixed = {name: theirs[name].lerp(ours[name], share) for name in ours if ours[name].is_floating_point()}
        visual.load_state_dict(mixed, strict=False)
        clip = copy.deepcopy(self.tower.clip, {id(self.tower.visual): visual})  # the text, around the new image side
        return self.tower.around(visual, clip)

    def export(self, path: str | Path):
        """Write the averaged tower as CLIP weights, for ``weights=path``; the text tower is unchanged.

        Settings recorded with the weights are replaced by those of this run.
        """
        tower, protocol = self.averaged(), self.pipeline.protocol
        settings = {key: getattr(protocol, key) for key in tower.card.protocol}
        save_tower(tower, path, Path(path).stem, settings, notes={"clipself_share": self.share})
