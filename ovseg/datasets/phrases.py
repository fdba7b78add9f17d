"""Phrases and their true boxes: over composed scenes, and over the images of ``coco_mini``.

    dict(type='ovseg.ScenePhrases', styles='unseen', count=100)

An item is ``dict(inputs=(3, H, W) uint8 BGR, data_samples=BaseDataElement)``; the data sample's ``phrases`` are one
``dict(phrase=str, truth=(M, 4) float32)`` per name, boxes (x1, y1, x2, y2) in pixels, edges.  An image on which
nothing is named has an empty list.
"""

from pathlib import Path

import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.structures import BaseDataElement

from ovseg.compat.untrusted import read_json
from ovseg.registry import DATASETS, TRANSFORMS
from ovseg.text.vocabulary import Vocabulary

from .base import metainfo
from .composed import PASSED_ON, _composer
from .mini import VARIABLE, data_folder
from .scenes import object_names

META_KEYS = ("img_path", "ori_shape", "seed")


@TRANSFORMS.register_module()
class LoadScenePhrases(BaseTransform):
    """Compose the scene that ``ScenePhrases`` describes.

    Required keys: ``seed``, ``size``, ``styles``.
    Added keys: ``img`` ((size, size, 3) uint8 BGR), ``ori_shape``, ``phrases``: the objects that ``Scene.visible``
    finds worth naming, each with the one box around its visible part.
    """

    def transform(self, results: dict) -> dict:
        scene = _composer(size=results["size"], styles=results["styles"])(results["seed"])
        named, names = scene.visible(), object_names()
        results["phrases"] = [
            dict(phrase=names[label], truth=box[None])
            for (label, _, _), box in zip(scene.objects, scene.boxes(), strict=True)
            if label in named
        ]
        results.update(img=np.ascontiguousarray(scene.image[..., ::-1]), ori_shape=scene.labels.shape)
        return results


@TRANSFORMS.register_module()
class PackPhrases(BaseTransform):
    """What ``PhraseLocalizer`` takes: ``inputs`` and ``data_samples``, see the module.

    Required keys: ``img``, ``phrases``; those of ``META_KEYS`` that are there become metainfo.

    Raises:
        ValueError: an image of another size than ``height`` and ``width``, where the annotations have them.
    """

    def transform(self, results: dict) -> dict:
        shape = results["img"].shape[:2]
        annotated = results.get("height", shape[0]), results.get("width", shape[1])
        if annotated != shape:
            raise ValueError(
                f"{results.get('img_path', 'a picture')} has {shape[1]} x {shape[0]} pixels, its annotations are for "
                f"{annotated[1]} x {annotated[0]}: the boxes belong to another file or to a turned or resized copy."
            )
        sample = BaseDataElement(metainfo={key: results[key] for key in META_KEYS if key in results})
        sample.phrases = results["phrases"]
        pixels = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(pixels), data_samples=sample)


@DATASETS.register_module()
class ScenePhrases(BaseDataset):
    """The names of the objects in ``count`` composed scenes, the images of ``ComposedScenes``.

    Args:
        styles: ``seen`` or ``unseen`` art styles of the objects.
        count: number of scenes.
        size: side of the square image in pixels.
        first_seed: seed of the first scene; the next ones follow.
        pipeline: transforms; by default ``LoadScenePhrases`` and ``PackPhrases``.
        **kwargs: ``indices``, ``test_mode``, ``lazy_init``, ``serialize_data``, ``max_refetch`` as in mmengine.

    Raises:
        ValueError: another value of ``styles``, a count or size below 1, another argument.
    """

    METAINFO = metainfo(Vocabulary.parse("scene_objects"), "scenes_phrases")

    def __init__(
        self,
        styles: str = "seen",
        count: int = 100,
        size: int = 128,
        first_seed: int = 1_000_000,
        pipeline: list | None = None,
        **kwargs,
    ):
        if styles not in ("seen", "unseen") or min(count, size) < 1:
            raise ValueError(
                "ScenePhrases takes styles 'seen' or 'unseen', count and size of at least 1; got "
                f"{styles=}, {count=}, {size=}."
            )
        if not PASSED_ON.issuperset(kwargs):
            raise ValueError(
                f"ScenePhrases reads no files: {', '.join(sorted(kwargs))} cannot all be given; of mmengine's "
                f"arguments only {', '.join(sorted(PASSED_ON))}."
            )
        self.scenes = dict(styles=styles, size=size)
        self.seeds = range(first_seed, first_seed + count)
        super().__init__(pipeline=[LoadScenePhrases(), PackPhrases()] if pipeline is None else pipeline, **kwargs)
        self._metainfo["dataset_name"] = f"scenes_phrases_{styles}"

    def load_data_list(self) -> list[dict]:
        """One entry per scene; ``img_path`` is a name for result files, no such file exists."""
        return [dict(self.scenes, seed=seed, img_path=f"scene_{seed}.png") for seed in self.seeds]


@DATASETS.register_module()
class COCOMiniPhrases(BaseDataset):
    """The categories of the instances in the images of ``coco_mini``; all boxes of a category are true.

    Crowds (``iscrowd``), whose box is not that of one thing, are left out.

    Args:
        split: ``val`` or ``train``.
        data_root: the folder itself; located through ``OVSEG_DATA`` if None.
        pipeline: transforms; by default MMCV's ``LoadImageFromFile`` and ``PackPhrases``.
        **kwargs: see mmengine's ``BaseDataset``; ``ann_file`` is a json of COCO instances.

    Raises:
        ValueError: an unknown split, or a file that is not a JSON file of COCO instances.
        FileNotFoundError: the data is not there.
    """

    METAINFO = metainfo(Vocabulary.parse("coco_things"), "coco_mini_phrases")

    def __init__(self, split: str = "val", data_root: str | None = None, pipeline: list | None = None, **kwargs):
        if split not in ("train", "val"):
            raise ValueError(f"COCOMiniPhrases has the splits train, val; got '{split}'.")
        paths = dict(ann_file=f"instances_{split}.json", data_prefix=dict(img_path=f"images/{split}"))
        default = [LoadImageFromFile(), PackPhrases()]
        super().__init__(
            data_root=data_root or str(data_folder("coco_mini")),
            pipeline=default if pipeline is None else pipeline,
            **(paths | kwargs),
        )

    def load_data_list(self) -> list[dict]:
        """One entry per image, in the order of the file."""
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(
                f"COCOMiniPhrases: there is no {path}. Set data_root (now '{self.data_root}') to the folder of the "
                f"data; it is looked for below the environment variable {VARIABLE}."
            )
        try:
            content = read_json(path)
            names = {category["id"]: category["name"] for category in content["categories"]}
            boxes = {image["id"]: {} for image in content["images"]}
            for each in content["annotations"]:
                if not each.get("iscrowd"):
                    x, y, width, height = each["bbox"]
                    of_name = boxes[each["image_id"]].setdefault(names[each["category_id"]], [])
                    of_name.append((x, y, x + width, y + height))
            return [self._entry(image, boxes[image["id"]]) for image in content["images"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"COCOMiniPhrases: {path} is not a JSON file of COCO instances with matching images, annotations and "
                f"categories ({type(error).__name__}: {error})."
            ) from error

    def _entry(self, image: dict, boxes: dict[str, list]) -> dict:
        phrases = [dict(phrase=name, truth=np.asarray(of, np.float32)) for name, of in boxes.items()]
        path = Path(self.data_prefix["img_path"]) / image["file_name"]
        return dict(img_path=str(path), height=image["height"], width=image["width"], phrases=phrases)
