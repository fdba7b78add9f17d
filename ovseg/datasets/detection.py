"""Boxes and masks with class names: composed scenes, and the images of ``coco_mini``.

    dict(type='ovseg.SceneBoxes', styles='unseen', count=300)

Data samples are MMDetection's: ``gt_instances`` with ``bboxes`` (R, 4) x1, y1, x2, y2 in pixels, ``labels`` (R,) and
``masks``; instances that count neither as hits nor as misses are in ``ignored_instances``.  The metainfo defines
``base_classes`` and ``novel_classes``.  A pipeline that resizes for a detector loads the truth after it, so that scores
are those of the image's own size.
"""

from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.datasets import BaseDetDataset, CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks

from ovseg.registry import DATASETS, TRANSFORMS
from ovseg.text.vocabulary import Vocabulary

from .base import metainfo
from .composed import PASSED_ON, _composer
from .mini import VARIABLE, data_folder
from .scenes import object_names
from .splits import BASE_COCO, NOVEL_COCO, NOVEL_SCENES

META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
OBJECTS = object_names()


def _scene(results: dict):
    return _composer(**{key: results[key] for key in ("size", "split", "styles")})(results["seed"])


@TRANSFORMS.register_module()
class LoadScenePicture(BaseTransform):
    """Compose the image of a scene.

    Required keys: ``seed``, ``size``, ``styles``, ``split``.
    Added keys: ``img`` ((size, size, 3) uint8 BGR), ``img_shape``, ``ori_shape``.
    """

    def transform(self, results: dict) -> dict:
        picture = _scene(results).image
        shape = picture.shape[:2]
        results.update(img=np.ascontiguousarray(picture[..., ::-1]), img_shape=shape, ori_shape=shape)
        return results


@TRANSFORMS.register_module()
class LoadSceneBoxes(BaseTransform):
    """The objects of a scene: those that ``Scene.visible`` lists, and the others as ignored.

    Required keys: ``seed``, ``size``, ``styles``, ``split``, ``left_out`` (labels that are not annotated at all).
    Added keys: ``gt_bboxes``, ``gt_bboxes_labels``, ``gt_masks``, ``gt_ignore_flags``, as MMDetection loads them.
    """

    def transform(self, results: dict) -> dict:
        scene = _scene(results)
        named, size = scene.visible(), (results["size"],) * 2
        annotated = [
            (label, mask, box)
            for (label, mask, _), box in zip(scene.objects, scene.boxes(), strict=True)
            if mask.any() and label not in results["left_out"]
        ]
        labels = np.array([label for label, _, _ in annotated], np.int64)
        boxes = np.array([box for _, _, box in annotated], np.float32).reshape(-1, 4)
        results["gt_bboxes"] = HorizontalBoxes(torch.from_numpy(boxes))
        results["gt_bboxes_labels"] = labels
        results["gt_masks"] = BitmapMasks([mask.astype(np.uint8) for _, mask, _ in annotated], *size)
        results["gt_ignore_flags"] = np.array([label not in named for label in labels], bool)
        return results


@DATASETS.register_module()
class SceneBoxes(BaseDetDataset):
    """The objects in ``count`` composed scenes, the images of ``ComposedScenes``.

    Args:
        styles: ``seen`` or ``unseen`` art styles of the objects.
        count: number of scenes.
        size: side of the square image in pixels.
        split: ``held_out`` images of stuff, which training never uses, or those of the ``train`` split.
        first_seed: seed of the first scene; the next ones follow.
        base_only: drop the instances of novel classes from the ground truth; labels remain indices into all classes.
        pipeline: transforms; by default they load the image and the ground truth and end with ``PackDetInputs``.
        **kwargs: ``indices``, ``test_mode``, ``lazy_init``, ``serialize_data``, ``max_refetch``, ``filter_cfg``.

    Raises:
        ValueError: another value of ``styles`` or ``split``, a count or size below 1, another argument.
    """

    METAINFO = metainfo(
        Vocabulary.parse("scene_objects"),
        "scenes_boxes",
        base_classes=tuple(name for name in OBJECTS if name not in NOVEL_SCENES),
        novel_classes=NOVEL_SCENES,
    )

    def __init__(
        self,
        styles: str = "seen",
        count: int = 300,
        size: int = 128,
        split: str = "held_out",
        first_seed: int = 1_000_000,
        base_only: bool = False,
        pipeline: list | None = None,
        **kwargs,
    ):
        if styles not in ("seen", "unseen") or split not in ("train", "held_out") or min(count, size) < 1:
            raise ValueError(
                "SceneBoxes takes styles 'seen' or 'unseen', split 'train' or 'held_out', count and size from 1; "
                f"got {styles=}, {split=}, {count=}, {size=}."
            )
        if not (PASSED_ON | {"filter_cfg"}).issuperset(kwargs):
            raise ValueError(
                f"SceneBoxes reads no files: {', '.join(sorted(kwargs))} cannot all be given; of MMDetection's "
                f"arguments only {', '.join(sorted(PASSED_ON | {'filter_cfg'}))}."
            )
        left_out = [OBJECTS.index(name) for name in NOVEL_SCENES] if base_only else []
        self.scenes = dict(styles=styles, size=size, split=split, left_out=left_out)
        self.seeds = range(first_seed, first_seed + count)
        default = [LoadScenePicture(), LoadSceneBoxes(), PackDetInputs(meta_keys=META_KEYS[:4])]
        super().__init__(pipeline=default if pipeline is None else pipeline, **kwargs)
        self._metainfo["dataset_name"] = f"scenes_boxes_{styles}"

    def load_data_list(self) -> list[dict]:
        """One entry per scene; ``img_path`` is a name for result files, no such file exists."""
        side = self.scenes["size"]
        return [
            dict(self.scenes, seed=seed, img_id=seed, img_path=f"scene_{seed}.png", height=side, width=side)
            for seed in self.seeds
        ]


class WordBoxes(CocoDataset):
    """MMDetection's ``CocoDataset`` with clear errors for missing files and an option to drop novel classes.

    Args:
        base_only: drop the instances of classes other than ``base_classes`` from the ground truth; labels remain
            indices into all classes.
        **kwargs: see ``CocoDataset``.

    Raises:
        FileNotFoundError: the annotations are not there.
    """

    hint = "They follow MMDetection's folders: data/coco/annotations/instances_val2017.json, data/coco/val2017/*.jpg."

    def __init__(self, *args, base_only: bool = False, **kwargs):
        self.base_only = base_only
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        if not Path(self.ann_file).is_file():
            raise FileNotFoundError(
                f"{type(self).__name__}: there is no {self.ann_file}. Set data_root (now '{self.data_root}') to the "
                f"folder of the data. {self.hint}"
            )
        return super().load_data_list()

    def parse_data_info(self, raw_data_info: dict) -> dict:
        entry = super().parse_data_info(raw_data_info)
        if self.base_only:
            base = {self.metainfo["classes"].index(name) for name in self.metainfo["base_classes"]}
            entry["instances"] = [each for each in entry["instances"] if each["bbox_label"] in base]
        return entry


@DATASETS.register_module()
class COCOMiniBoxes(WordBoxes):
    """The instances in the images of ``coco_mini``: 80 classes, 48 of them base and 17 novel as in OV-COCO.

    Args:
        split: ``val`` or ``train``.
        data_root: the folder itself; located through ``OVSEG_DATA`` if None.
        base_only: see ``WordBoxes``.
        pipeline: transforms; by default they load the image and the ground truth and end with ``PackDetInputs``.
        **kwargs: see ``CocoDataset``.

    Raises:
        ValueError: an unknown split.
        FileNotFoundError: the data is not there.
    """

    METAINFO = metainfo(
        Vocabulary.parse("coco_things"), "coco_mini_boxes", base_classes=BASE_COCO, novel_classes=NOVEL_COCO
    )
    hint = f"The mini sets are looked for below the environment variable {VARIABLE}."

    def __init__(self, split: str = "val", data_root: str | None = None, pipeline: list | None = None, **kwargs):
        if split not in ("train", "val"):
            raise ValueError(f"COCOMiniBoxes has the splits train, val; got '{split}'.")
        paths = dict(ann_file=f"instances_{split}.json", data_prefix=dict(img=f"images/{split}"))
        default = [
            LoadImageFromFile(),
            LoadAnnotations(with_bbox=True, with_mask=True),
            PackDetInputs(meta_keys=META_KEYS[:4]),
        ]
        super().__init__(
            data_root=data_root or str(data_folder("coco_mini")),
            pipeline=default if pipeline is None else pipeline,
            **(paths | kwargs),
        )


@DATASETS.register_module()
class OVCOCO(WordBoxes):
    """COCO 2017 in the open-vocabulary setting: 48 base and 17 novel classes, all 65 in the vocabulary at once.

    Train with ``base_only=True`` and ``filter_cfg=dict(filter_empty_gt=True)``: the images keep unannotated novel
    objects.  Images of the validation set without any of the 65 classes are dropped with the same ``filter_cfg`` and
    ``test_mode=False``.

    Args:
        base_only: see ``WordBoxes``.
        **kwargs: see ``CocoDataset``.
    """

    METAINFO = metainfo(
        Vocabulary.parse("ov_coco"),
        "ov_coco",
        base_classes=BASE_COCO,
        novel_classes=NOVEL_COCO,
    )
