import json
import warnings
from pathlib import Path

import pytest

from ovseg.text.background import STUFF_WORDS
from ovseg.text.benchmark_vocabularies import (
    FOLDER,
    benchmark_labels,
    canonical_benchmark,
    list_benchmarks,
)
from ovseg.text.vocabulary import Vocabulary

COUNTS = {
    "voc20": 20,
    "voc21": 21,
    "context59": 59,
    "context60": 60,
    "context459": 459,
    "coco_object": 81,
    "coco_stuff": 171,
    "coco_panoptic": 133,
    "cityscapes": 19,
    "ade150": 150,
    "ade847": 847,
    "lvis": 1203,
    "camvid": 11,
    "scenes": 112,
    "scenes_unseen": 23,
    "scene_objects": 94,
    "scene_objects_novel": 19,
    "coco_things": 80,
    "ov_coco": 65,
    "ov_coco_novel": 17,
}


def test_every_list_is_tested():
    assert set(list_benchmarks()) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_file(name):
    spec = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary.parse(name)
    assert spec["name"] == name
    assert spec["source"] and spec["license"]
    assert spec["hash"] == vocabulary.hash
    assert len(vocabulary) == COUNTS[name] == len(benchmark_labels(name)) == len(set(benchmark_labels(name)))
    assert len(set(vocabulary.colors)) == len(vocabulary)
    assert not [word for word in (*vocabulary.names, *vocabulary.prompts) if set(word) & set("_()|")]
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Vocabulary.parse(name) == vocabulary


@pytest.mark.parametrize("name", COUNTS)
def test_no_word_describes_two_classes(name):
    words = [word.casefold() for word in Vocabulary.parse(name).prompts]
    repeated = {word for word in words if words.count(word) > 1}
    # SCLIP's background words for COCO-Object hold "bed", kept because published numbers were made with it.
    assert repeated == ({"bed"} if name == "coco_object" else set())


@pytest.mark.parametrize(
    ("name", "index", "words"),
    [
        ("voc20", 3, ("ship",)),
        ("voc20", 10, ("table",)),
        ("voc21", 4, ("ship",)),
        ("voc21", 20, ("television monitor", "tv monitor", "monitor", "television", "screen")),
        ("voc21", 0, STUFF_WORDS),
        ("coco_object", 0, STUFF_WORDS),
        ("context60", 0, ("background",)),
        ("coco_stuff", 170, ("wood",)),
        ("coco_panoptic", 129, ("building",)),
        ("cityscapes", 6, ("traffic light",)),
        ("ade150", 7, ("bed",)),
        ("ade150", 149, ("flag",)),
        ("ade847", 13, ("windowpane", "window")),
        ("ade847", 846, ("adding machine", "totalizer", "totaliser")),
        ("context459", 2, ("air conditioner",)),
        ("context459", 458, ("wool",)),
        ("lvis", 0, ("aerosol can",)),
        ("lvis", 1202, ("zucchini",)),
    ],
)
def test_known_classes(name, index, words):
    assert Vocabulary.parse(name).synonyms[index] == words


def test_person_is_described_by_clothes():
    for name in ("voc20", "voc21", "coco_object"):
        vocabulary = Vocabulary.parse(name)
        words = vocabulary.synonyms[vocabulary.index("person")]
        assert words[0] == "person" and len(words) == (8 if name == "coco_object" else 7)


def test_foreground_lists_are_the_background_lists_without_class_0():
    for short, long in (("voc20", "voc21"), ("context59", "context60")):
        assert Vocabulary.parse(long).with_background("none").synonyms == Vocabulary.parse(short).synonyms
        assert benchmark_labels(long) == ("background", *benchmark_labels(short))
    assert Vocabulary.parse("coco_object").names[1:] == Vocabulary.parse("coco_panoptic").names[:80]
    assert Vocabulary.parse("coco_stuff").names[:80] == Vocabulary.parse("coco_panoptic").names[:80]


def test_lists_that_are_parts_of_others():
    from ovseg.datasets.scenes import object_names, stuff_names

    things, objects = Vocabulary.parse("coco_things").names, Vocabulary.parse("scene_objects").names
    assert things == Vocabulary.parse("coco_panoptic").names[:80]
    both = Vocabulary.parse("ov_coco").names
    assert both == tuple(name for name in things if name in both)
    assert set(Vocabulary.parse("ov_coco_novel").names) < set(both)
    assert objects == tuple(object_names()) and (*objects, *stuff_names()) == Vocabulary.parse("scenes").names
    unseen = Vocabulary.parse("scenes_unseen").names
    assert unseen == (*objects[2::5], *stuff_names()[2::4])
    assert Vocabulary.parse("scene_objects_novel").names == tuple(name for name in objects if name in unseen)


def test_names_are_found_and_misspellings_answered():
    assert Vocabulary.parse("ADE-150") == Vocabulary.parse("ade20k") == Vocabulary.parse("ade150")
    assert canonical_benchmark("COCO Object") == "coco_object" and canonical_benchmark("cat") is None
    with pytest.raises(ValueError, match="Did you mean 'cityscapes'"):
        Vocabulary.parse("cityscape")
    with pytest.raises(ValueError, match="Known: ade150"):
        benchmark_labels("nothing like it")


def _column(file: Path, column: int) -> tuple[str, ...]:
    return tuple(line.split("\t")[column] for line in file.read_text(encoding="utf-8").splitlines())


def test_order_is_that_of_the_label_files(data):
    assert benchmark_labels("coco_panoptic") == _column(data / "coco_mini" / "classes.txt", 3)
    assert (*benchmark_labels("camvid"), "unlabelled") == _column(data / "camvid_mini" / "classes.txt", 1)
