"""The benchmarks of ``table.py`` as MMSegmentation datasets.

    dict(type='ovseg.VOC20')                                   # the validation split below data/VOCdevkit/VOC2012
    dict(type='ovseg.ADE20K', split='train', data_root='/my/ADEChallengeData2016')

Class names and colors come from the vocabulary of that name and nowhere else. Every argument of mmseg's
``BaseSegDataset`` is accepted; ``data_prefix``, ``ann_file``, suffixes and ``reduce_zero_label`` override the table.
"""

from ovseg.registry import DATASETS
from ovseg.text.vocabulary import Vocabulary

from .base import FolderDataset, metainfo
from .table import BENCHMARKS, Benchmark


class BenchmarkDataset(FolderDataset):
    """A benchmark; subclasses name their row of the table.

    Args:
        split: ``val`` or ``train``.
        data_root: folder of the data; the table's default if None.
        **kwargs: see mmseg's ``BaseSegDataset``.

    Raises:
        ValueError: an unknown split.
        FileNotFoundError: files are missing; the message says how to prepare them.
    """

    row: Benchmark

    def __init_subclass__(cls, benchmark: str, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.row = BENCHMARKS[benchmark]
        cls.METAINFO = metainfo(Vocabulary.parse(benchmark), benchmark)
        cls.hint = cls.row.prepare

    def __init__(self, split: str = "val", data_root: str | None = None, **kwargs):
        if split not in self.row.splits:
            raise ValueError(f"{type(self).__name__} has the splits {', '.join(self.row.splits)}; got '{split}'.")
        images, labels, stems = self.row.splits[split]
        defaults = dict(
            data_prefix=dict(img_path=images, seg_map_path=labels),
            ann_file=stems,
            img_suffix=self.row.img_suffix,
            seg_map_suffix=self.row.seg_map_suffix,
            reduce_zero_label=self.row.reduce_zero_label,
        )
        super().__init__(data_root=data_root or self.row.data_root, **(defaults | kwargs))


@DATASETS.register_module()
class VOC20(BenchmarkDataset, benchmark="voc20"):
    """PASCAL VOC 2012 without background: 20 classes, background pixels ignored."""


@DATASETS.register_module()
class VOC21(BenchmarkDataset, benchmark="voc21"):
    """PASCAL VOC 2012 with background: class 0 and 20 classes."""


@DATASETS.register_module()
class Context59(BenchmarkDataset, benchmark="context59"):
    """PASCAL Context without background: 59 classes, background pixels ignored."""


@DATASETS.register_module()
class Context60(BenchmarkDataset, benchmark="context60"):
    """PASCAL Context with background: class 0 and 59 classes."""


@DATASETS.register_module()
class COCOObject(BenchmarkDataset, benchmark="coco_object"):
    """COCO's 80 things, everything else background 0.

    Reads ``*_instanceTrainIds.png``, or COCO-Stuff's own labels with ``seg_map_suffix='_labelTrainIds.png'``; the two
    give the same maps.
    """

    def load_data_list(self) -> list[dict]:
        items = super().load_data_list()
        if self.seg_map_suffix == BENCHMARKS["coco_stuff"].seg_map_suffix:
            things = len(self.METAINFO["classes"]) - 1
            to_object = {label: label + 1 if label < things else 0 for label in range(256)}
            renamed = self.label_map or {label: label for label in range(256)}
            for item in items:
                item["label_map"] = {label: renamed[thing] for label, thing in to_object.items()}
        return items


@DATASETS.register_module()
class COCOStuff164k(BenchmarkDataset, benchmark="coco_stuff"):
    """COCO-Stuff 164k: 80 things and 91 kinds of stuff."""


@DATASETS.register_module()
class Cityscapes(BenchmarkDataset, benchmark="cityscapes"):
    """Cityscapes: 19 classes of road scenes."""


@DATASETS.register_module()
class ADE20K(BenchmarkDataset, benchmark="ade150"):
    """ADE20K, the 150 classes of the scene parsing challenge; "other" pixels are ignored."""
