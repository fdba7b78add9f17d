"""The eight benchmarks of open-vocabulary segmentation: where their files are and what their labels mean.

Folders and suffixes are those of MMSegmentation's dataset guide, so data prepared for mmseg is found as it is; its
converters are in ``tools/dataset_converters`` there. Label 255 is ignored everywhere. ``reduce_zero_label``: 0 in the
file is ignored and class i is stored as i + 1.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Benchmark:
    """One row of the table.

    dataset            class in ``ovseg.datasets`` and name in configs (``type='ovseg.<dataset>'``)
    vocabulary         its class list, see ``ovseg.text.benchmark_vocabularies``
    data_root          default folder, relative to the working directory
    splits             split -> (image folder, label folder, list of file stems or "" for all images), below data_root
    img_suffix         end of an image file name after its stem
    seg_map_suffix     end of a label file name after the same stem
    reduce_zero_label  see the module
    prepare            how to make the files
    """

    dataset: str
    vocabulary: str
    data_root: str
    splits: dict[str, tuple[str, str, str]]
    prepare: str
    img_suffix: str = ".jpg"
    seg_map_suffix: str = ".png"
    reduce_zero_label: bool = False


_VOC = {s: ("JPEGImages", "SegmentationClass", f"ImageSets/Segmentation/{s}.txt") for s in ("train", "val")}
_CONTEXT = {
    s: ("JPEGImages", "SegmentationClassContext", f"ImageSets/SegmentationContext/{s}.txt") for s in ("train", "val")
}
_COCO = {s: (f"images/{s}2017", f"annotations/{s}2017", "") for s in ("train", "val")}
_CITY = {s: (f"leftImg8bit/{s}", f"gtFine/{s}", "") for s in ("train", "val")}
_ADE = {
    s: (f"images/{folder}", f"annotations/{folder}", "") for s, folder in (("train", "training"), ("val", "validation"))
}

_VOC_HINT = "Unpack VOCtrainval_11-May-2012.tar."
_CONTEXT_HINT = "Unpack VOCtrainval_03-May-2010.tar and run mmseg's pascal_context.py with trainval_merged.json."
_STUFF_HINT = (
    "Unpack train2017.zip, val2017.zip into images/ and stuffthingmaps_trainval2017.zip into annotations/, then run "
    "mmseg's coco_stuff164k.py, which writes *_labelTrainIds.png."
)
_OBJECT_HINT = (
    "Prepare COCO-Stuff 164k. Then either give seg_map_suffix='_labelTrainIds.png' (mapped while loading: things 0..79 "
    "become 1..80, stuff and unlabeled become background 0), or write the same maps to *_instanceTrainIds.png with "
    "the convert_coco_object.py of GroupViT, which SCLIP and its successors use."
)
_CITY_HINT = (
    "Unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, then run mmseg's cityscapes.py, which writes "
    "*_gtFine_labelTrainIds.png."
)

BENCHMARKS = {
    row.vocabulary: row
    for row in (
        Benchmark("VOC20", "voc20", "data/VOCdevkit/VOC2012", _VOC, _VOC_HINT, reduce_zero_label=True),
        Benchmark("VOC21", "voc21", "data/VOCdevkit/VOC2012", _VOC, _VOC_HINT),
        Benchmark("Context59", "context59", "data/VOCdevkit/VOC2010", _CONTEXT, _CONTEXT_HINT, reduce_zero_label=True),
        Benchmark("Context60", "context60", "data/VOCdevkit/VOC2010", _CONTEXT, _CONTEXT_HINT),
        Benchmark(
            "COCOObject",
            "coco_object",
            "data/coco_stuff164k",
            _COCO,
            _OBJECT_HINT,
            seg_map_suffix="_instanceTrainIds.png",
        ),
        Benchmark(
            "COCOStuff164k",
            "coco_stuff",
            "data/coco_stuff164k",
            _COCO,
            _STUFF_HINT,
            seg_map_suffix="_labelTrainIds.png",
        ),
        Benchmark(
            "Cityscapes",
            "cityscapes",
            "data/cityscapes",
            _CITY,
            _CITY_HINT,
            img_suffix="_leftImg8bit.png",
            seg_map_suffix="_gtFine_labelTrainIds.png",
        ),
        Benchmark(
            "ADE20K",
            "ade150",
            "data/ade/ADEChallengeData2016",
            _ADE,
            "Unpack ADEChallengeData2016.zip.",
            reduce_zero_label=True,
        ),
    )
}
