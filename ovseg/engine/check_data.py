"""Look at all data of a config before the first step: what is missing, does not fit, or no class has."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope

from ovseg.registry import SCOPE

SPLITS = ("train", "val", "test")
LOADERS = ("Load",)  # transforms that read files; all others would only hide what is wrong


@dataclass
class DataReport:
    """What the labels of one split hold.

    classes    names by id
    pixels     (K,) int64 per class;  images: (K,) int64, in how many images a class occurs
    count      images that were read;  ignored: pixels with label 255, of ``total`` pixels
    problems   what is wrong, one line per image
    """

    classes: tuple[str, ...]
    pixels: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)
    count: int = 0
    ignored: int = 0
    total: int = 0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.pixels, self.images = np.zeros(len(self.classes), np.int64), np.zeros(len(self.classes), np.int64)

    def add(self, name: str, labels: np.ndarray, size: tuple[int, int]):
        """Count one label map (H, W); ``size`` is (H, W) of its image."""
        if labels.shape != tuple(size):
            self.problems.append(f"{name}: the label map has {labels.shape} pixels, the picture {tuple(size)}")
            return
        ids, counts = np.unique(labels, return_counts=True)
        known = (ids >= 0) & (ids < len(self.classes))
        strange = ids[~known & (ids != 255)]
        if len(strange):
            self.problems.append(
                f"{name}: ids {strange.tolist()[:8]}, but the classes are 0 to {len(self.classes) - 1} (255: ignored)"
            )
        self.pixels[ids[known]] += counts[known]
        self.images[ids[known]] += 1
        self.ignored += int(counts[ids == 255].sum())
        self.total += labels.size
        self.count += 1
        if not known.any():
            self.problems.append(f"{name}: no pixel of any class")


def bare_dataset(cfg: dict) -> dict:
    """The config of a dataset inside its wrappers."""
    while isinstance(cfg.get("dataset"), dict):
        cfg = cfg["dataset"]
    return cfg


def check_split(cfg: Config, split: str, limit: int | None = None, progress: Callable = iter) -> DataReport:
    """Read every image and label map of ``<split>_dataloader``.

    Args:
        cfg: a config.
        split: ``train``, ``val`` or ``test``.
        limit: only that many images.
        progress: wraps the sequence of indices.

    Raises:
        ValueError: no such dataloader, or a dataset without names.
        FileNotFoundError: a folder of the dataset is not there.
    """
    loader = cfg.get(f"{split}_dataloader")
    if loader is None:
        raise ValueError(f"the config has no {split}_dataloader; it has {', '.join(splits(cfg)) or 'none'}.")
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", SCOPE)):
        dataset = DATASETS.build(bare_dataset(loader["dataset"]))
    if not dataset.metainfo.get("classes"):
        raise ValueError(f"{type(dataset).__name__} names no classes; give metainfo=dict(classes=[…]).")
    report = DataReport(tuple(dataset.metainfo["classes"]))
    load = Compose([step for step in dataset.pipeline.transforms if type(step).__name__.startswith(LOADERS)])
    for index in progress(range(min(len(dataset), limit or len(dataset)))):
        info = dataset.get_data_info(index)
        name = info.get("img_path", str(index))
        try:
            item = load(info)
        except Exception as error:  # whatever a decoder raises: the next image may be sound
            report.problems.append(f"{name}: {' '.join(str(error).split())[:160] or type(error).__name__}")
            continue
        report.add(name, item["gt_seg_map"], item["img"].shape[:2])
    return report


def splits(cfg: Config) -> Iterator[str]:
    """The splits that a config has data for."""
    return (split for split in SPLITS if cfg.get(f"{split}_dataloader") is not None)
