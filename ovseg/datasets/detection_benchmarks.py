"""Detection and phrases on the datasets used in papers, in MMDetection's folder layout.

OVCOCO              data/coco/annotations/instances_{train,val}2017.json                (``detection``)
OVLVIS              data/lvis_v1/annotations/lvis_v1_{train,val}.json; package ``lvis``
Objects365          MMDetection's ``Objects365V1Dataset`` with ``OpenVocabAP``: transfer without novel classes
GroundingPhrases    MDETR's json files: final_flickr_separateGT_{val,test}.json of Flickr30k Entities,
                    finetune_{refcoco,refcoco+,refcocog}_{val,testA,testB,test}.json

The layouts follow MMDetection's code and are tested with small files, not with the original data.
"""

from pathlib import Path

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import LVISV1Dataset
from mmengine.dataset import BaseDataset

from ovseg.compat.untrusted import read_json
from ovseg.registry import DATASETS

from .phrases import PackPhrases


@DATASETS.register_module()
class OVLVIS(LVISV1Dataset):
    """LVIS v1 in the open-vocabulary setting: 405 frequent and 461 common classes are base, 337 rare ones novel.

    Rare classes are read from the annotations; ``metainfo`` then holds ``base_classes`` and ``novel_classes``.

    Args:
        base_only: drop the instances of rare classes from the ground truth; labels remain indices into all 1,203
            classes.
        **kwargs: see MMDetection's ``LVISV1Dataset``.

    Raises:
        FileNotFoundError: the annotations are not there.
        ImportError: the package ``lvis`` is not installed.
    """

    def __init__(self, *args, base_only: bool = False, **kwargs):
        self.base_only = base_only
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f"OVLVIS: there is no {path}. Set data_root (now '{self.data_root}') to the folder of the data, such "
                "as data/lvis_v1/ with annotations/lvis_v1_val.json and the images of COCO 2017."
            )
        categories = read_json(path)["categories"]
        order = [each["frequency"] == "r" for each in sorted(categories, key=lambda each: each["id"])]
        names = self.metainfo["classes"]
        self._metainfo["novel_classes"] = tuple(name for name, rare in zip(names, order, strict=True) if rare)
        self._metainfo["base_classes"] = tuple(name for name, rare in zip(names, order, strict=True) if not rare)
        self._metainfo["dataset_name"] = "ov_lvis"
        items = super().load_data_list()
        if self.base_only:
            for item in items:
                item["instances"] = [each for each in item["instances"] if not order[each["bbox_label"]]]
        return items


@DATASETS.register_module()
class GroundingPhrases(BaseDataset):
    """Phrases and their ground-truth boxes from MDETR's json files; scored by ``PhraseMetric``.

    An image with ``tokens_positive_eval`` (Flickr30k Entities) has one phrase per entry, the words of its caption at
    that position, with all boxes of the phrase as ground truth.  Otherwise (RefCOCO, RefCOCO+, RefCOCOg) the phrase is
    the caption.

    Args:
        name: name of the dataset in results.
        ann_file, data_root, data_prefix: as MMDetection has them; ``data_prefix=dict(img_path=…)``.
        pipeline: transforms; by default MMCV's ``LoadImageFromFile`` and ``PackPhrases``.
        **kwargs: see mmengine's ``BaseDataset``.

    Raises:
        FileNotFoundError: the annotations are not there.
        ValueError: a file of another layout.
    """

    def __init__(self, name: str = "phrases", pipeline: list | None = None, **kwargs):
        default = [LoadImageFromFile(), PackPhrases()]
        super().__init__(pipeline=default if pipeline is None else pipeline, **kwargs)
        self._metainfo["dataset_name"] = name

    def load_data_list(self) -> list[dict]:
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f"GroundingPhrases: there is no {path}. Give ann_file one of MDETR's json files, such as "
                "final_flickr_separateGT_val.json or finetune_refcoco_val.json, and data_prefix=dict(img_path=…)."
            )
        content = read_json(path)
        try:
            of_image: dict = {image["id"]: [] for image in content["images"]}
            for each in content["annotations"]:
                of_image[each["image_id"]].append(each)
            return [self._entry(image, of_image[image["id"]]) for image in content["images"]]
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(
                f"GroundingPhrases: {path} has another layout than MDETR's files ({type(error).__name__}: {error})."
            ) from error

    def _entry(self, image: dict, annotations: list[dict]) -> dict:
        spans = image.get("tokens_positive_eval")
        if spans is None:
            phrases = [image["caption"]] if annotations else []
            phrase_ids = [0] * len(annotations)
        else:
            phrases = [" ".join(image["caption"][start:end] for start, end in span) for span in spans]
            ids = [_single(each["phrase_ids"]) for each in annotations]
            phrase_ids = np.unique(ids, return_inverse=True)[1].tolist() if ids else []
        boxes: list[list] = [[] for _ in phrases]
        for phrase_id, each in zip(phrase_ids, annotations, strict=True):
            x, y, width, height = each["bbox"]
            boxes[phrase_id].append((x, y, x + width, y + height))
        annotated = [
            dict(phrase=phrase, truth=np.asarray(of, np.float32))
            for phrase, of in zip(phrases, boxes, strict=True)
            if of
        ]
        path = str(Path(self.data_prefix.get("img_path", "")) / image["file_name"])
        return dict(img_path=path, height=image["height"], width=image["width"], phrases=annotated)


def _single(value):
    return value[0] if isinstance(value, (list, tuple)) else value
