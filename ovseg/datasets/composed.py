"""Held-out composed scenes as a dataset: images and exact labels are generated in memory.

    dict(type='ovseg.ComposedScenes', styles='unseen', count=500, candidates='v20')

Scenes are those of ``ovseg.datasets.scenes``, with stuff images that training never sees unless ``split='train'``;
``styles`` chooses art styles seen or unseen in training. Item i is a pure function of (size, split, styles,
first_seed + i).
"""

from functools import cache

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import PackSegInputs

from ovseg.registry import DATASETS, TRANSFORMS
from ovseg.text.vocabulary import Vocabulary

from .base import metainfo
from .scenes import SceneComposer, candidates, object_names, stuff_names
from .splits import UNSEEN_SCENES

META_KEYS = ("img_path", "ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "candidates", "seed")
PASSED_ON = {"indices", "test_mode", "lazy_init", "serialize_data", "max_refetch"}

_composer = cache(SceneComposer)


@TRANSFORMS.register_module()
class LoadScene(BaseTransform):
    """Compose the scene that ``ComposedScenes`` describes.

    Required keys: ``seed``, ``size``, ``split``, ``styles``, ``protocol``.
    Added keys: ``img`` ((size, size, 3) uint8, BGR as every MMCV loader gives it), ``gt_seg_map`` ((size, size) int64),
    ``seg_fields``, ``img_shape``, ``ori_shape``, ``candidates`` (sorted class ids a prediction may use).
    """

    def transform(self, results: dict) -> dict:
        scene = _composer(**{key: results[key] for key in ("size", "split", "styles")})(results["seed"])
        shape = scene.labels.shape
        results.update(img=np.ascontiguousarray(scene.image[..., ::-1]), gt_seg_map=scene.labels)
        results.update(seg_fields=["gt_seg_map"], img_shape=shape, ori_shape=shape)
        results["candidates"] = candidates(scene.labels, results["protocol"], results["seed"])
        return results

    def __repr__(self):
        return "LoadScene()"


@DATASETS.register_module()
class ComposedScenes(BaseSegDataset):
    """``count`` composed scenes.

    Args:
        styles: ``seen`` or ``unseen`` art styles of the objects.
        count: number of scenes.
        size: side of the square image in pixels.
        split: ``held_out`` images of stuff, which training never uses, or those of the ``train`` split.
        first_seed: seed of the first scene; the next ones follow.
        candidates: ``full`` or ``v20``, see ``candidates``.
        pipeline: transforms; by default ``LoadScene`` and mmseg's ``PackSegInputs`` with ``META_KEYS``, which puts
            ``candidates`` into the metainfo of the data sample.
        **kwargs: ``indices``, ``test_mode``, ``lazy_init``, ``serialize_data``, ``max_refetch`` as in mmengine.

    Raises:
        ValueError: another value of ``styles`` or ``candidates``, or a count or size below 1.
    """

    METAINFO = metainfo(
        Vocabulary.parse([*object_names(), *stuff_names()]),
        "scenes",
        groups=dict(
            objects=list(range(len(object_names()))),
            stuff=list(range(len(object_names()), len(object_names()) + len(stuff_names()))),
        ),
        unseen=UNSEEN_SCENES,
    )

    def __init__(
        self,
        styles: str = "seen",
        count: int = 300,
        size: int = 128,
        split: str = "held_out",
        first_seed: int = 1_000_000,
        candidates: str = "full",
        pipeline: list | None = None,
        **kwargs,
    ):
        valid = styles in ("seen", "unseen"), candidates in ("full", "v20"), split in ("train", "held_out")
        if not all(valid) or min(count, size) < 1:
            raise ValueError(
                "ComposedScenes takes styles 'seen' or 'unseen', candidates 'full' or 'v20', split 'train' or "
                f"'held_out', count and size of at least 1; got {styles=}, {candidates=}, {split=}, {count=}, {size=}."
            )
        if not PASSED_ON.issuperset(kwargs):
            raise ValueError(
                f"ComposedScenes reads no files and always has all classes: {', '.join(sorted(kwargs))} cannot all be "
                f"given; of mmengine's arguments only {', '.join(sorted(PASSED_ON))}."
            )
        self.scenes = dict(styles=styles, size=size, split=split, protocol=candidates)
        self.seeds = range(first_seed, first_seed + count)
        default = [LoadScene(), PackSegInputs(meta_keys=META_KEYS)]
        super().__init__(pipeline=default if pipeline is None else pipeline, **kwargs)
        self._metainfo["dataset_name"] = f"scenes_{styles}_{candidates}"

    def load_data_list(self) -> list[dict]:
        """One entry per scene; ``img_path`` is a name for result files, no such file exists."""
        return [dict(self.scenes, seed=seed, img_path=f"scene_{seed}.png") for seed in self.seeds]
