"""Datasets: names from the vocabulary, mmseg's folders, labels that mean what they say."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import ovseg.datasets as datasets
from ovseg.datasets.table import BENCHMARKS
from ovseg.registry import DATASETS, names
from ovseg.text.vocabulary import Vocabulary

LOAD = [dict(type="LoadImageFromFile"), dict(type="mmseg.LoadAnnotations")]


def label_map(*ids):
    """A label map of two equal rows (mmseg drops an axis of length one)."""
    return np.array([ids, ids], np.uint8)


def make_files(root, row, labels, split="val", suffix=None):
    """One image and label of a benchmark in its folders."""
    images, maps, stems = row.splits[split]
    stem = "city/a" if row.dataset == "Cityscapes" else "a"
    for folder, ending, content in (
        (images, row.img_suffix, np.zeros((*labels.shape, 3), np.uint8)),
        (maps, suffix or row.seg_map_suffix, labels),
    ):
        path = root / folder / f"{stem}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(path)
    if stems:
        (root / stems).parent.mkdir(parents=True)
        (root / stems).write_text(f"{stem}\n")


def build(kind, **kwargs):
    return DATASETS.build(dict(type=kind, **kwargs))


@pytest.mark.parametrize("row", BENCHMARKS.values(), ids=BENCHMARKS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_benchmark_reads_mmsegs_folders(tmp_path, row, split):
    classes = len(Vocabulary.parse(row.vocabulary))
    stored = label_map(0, 1, classes - 1 + row.reduce_zero_label, 255)
    make_files(tmp_path, row, stored, split)
    dataset = build(row.dataset, split=split, data_root=str(tmp_path), pipeline=LOAD)
    assert len(dataset) == 1
    expected = [255, 0, classes - 1, 255] if row.reduce_zero_label else [0, 1, classes - 1, 255]
    assert dataset[0]["gt_seg_map"].tolist() == [expected] * 2


@pytest.mark.parametrize("row", BENCHMARKS.values(), ids=BENCHMARKS)
def test_names_and_colors_are_those_of_the_vocabulary(row):
    vocabulary = Vocabulary.parse(row.vocabulary)
    meta = build(row.dataset, lazy_init=True).metainfo
    assert tuple(meta["classes"]) == vocabulary.names and meta["dataset_name"] == row.vocabulary
    assert [tuple(color) for color in meta["palette"]] == list(vocabulary.colors)


def test_default_folders_are_relative():
    for row in BENCHMARKS.values():
        assert build(row.dataset, lazy_init=True).data_root == row.data_root and row.data_root.startswith("data/")


def test_the_table_knows_every_benchmark_class():
    others = {"CamVidMini", "COCOMini", "ComposedScenes", "COCOMiniPhrases", "ScenePhrases"}
    others |= {"COCOMiniBoxes", "SceneBoxes", "OVCOCO", "OVLVIS", "GroundingPhrases"}
    found = set(names(DATASETS)) - {"SeededDataset"}  # a wrapper
    assert {row.dataset for row in BENCHMARKS.values()} | others == found <= set(datasets.__all__)


def test_coco_object_from_either_label_file(tmp_path):
    row = BENCHMARKS["coco_object"]
    stuff_ids = label_map(0, 79, 80, 170, 255)
    make_files(tmp_path / "a", row, label_map(1, 80, 0, 0, 0))
    make_files(tmp_path / "b", row, stuff_ids, suffix="_labelTrainIds.png")
    a = build("COCOObject", data_root=str(tmp_path / "a"), pipeline=LOAD)
    b = build("COCOObject", data_root=str(tmp_path / "b"), seg_map_suffix="_labelTrainIds.png", pipeline=LOAD)
    assert np.array_equal(a[0]["gt_seg_map"], b[0]["gt_seg_map"])
    with pytest.raises(
        FileNotFoundError, match="_instanceTrainIds.png, does not exist; beside it: a_labelTrainIds.png"
    ):
        build("COCOObject", data_root=str(tmp_path / "b"))


def test_a_chosen_part_of_the_classes(tmp_path):
    row = BENCHMARKS["voc21"]
    make_files(tmp_path, row, label_map(0, 1, 2, 255))
    wanted = dict(classes=("background", Vocabulary.parse("voc21").names[2]))
    dataset = build("VOC21", data_root=str(tmp_path), metainfo=wanted, pipeline=LOAD)
    assert dataset[0]["gt_seg_map"].tolist() == [[0, 255, 1, 255]] * 2


@pytest.mark.parametrize(
    "kwargs, error, said",
    [
        (dict(type="ADE20K"), FileNotFoundError, "images/validation.*data_root.*ADEChallengeData2016.zip"),
        (dict(type="VOC20", split="test"), ValueError, "splits train, val; got 'test'"),
        (dict(type="VOC20", splti="val"), ValueError, "Did you mean 'split'"),
        (dict(type="CamVidMini", split="test"), ValueError, "train, val"),
        (dict(type="ComposedScenes", styles="noto"), ValueError, "styles='noto'"),
        (dict(type="ComposedScenes", metainfo=dict(classes=("cat",))), ValueError, "all classes"),
    ],
)
def test_mistakes_are_explained(tmp_path, monkeypatch, kwargs, error, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said) as caught:
        DATASETS.build(kwargs)
    assert "\n" not in str(caught.value)


def test_missing_mini_data_names_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="OVSEG_DATA"):
        build("CamVidMini")


@pytest.mark.parametrize(
    "kind, split, count, classes", [("CamVidMini", "val", 40, 11), ("COCOMini", "train", 100, 133)]
)
def test_mini_sets(data, monkeypatch, kind, split, count, classes):
    monkeypatch.setenv("OVSEG_DATA", str(data))
    dataset = build(kind, split=split, pipeline=LOAD)
    assert len(dataset) == count and len(dataset.metainfo["classes"]) == classes
    found = np.unique(np.concatenate([np.unique(dataset[i]["gt_seg_map"]) for i in range(0, count, 10)]))
    assert 255 in found and set(found) - {255} <= set(range(classes)) and len(found) > 9
    assert dataset[0]["img"].shape[:2] == dataset[0]["gt_seg_map"].shape


@pytest.fixture(scope="module")
def few_stuff_pictures():
    """Two pictures per kind of stuff instead of twelve: drawing them takes most of a test's time."""
    from ovseg.datasets.composed import _composer
    from ovseg.datasets.scenes import compose

    def forget():
        compose.stuff_bank.cache_clear()
        _composer.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        forget()
        patch.setitem(compose.STUFF_PICTURES, "held_out", range(36, 38))
        yield
    forget()


def scenes(**kwargs):
    return build("ComposedScenes", **(dict(count=3, size=64) | kwargs))


def test_composed_scenes_are_functions_of_their_seed(few_stuff_pictures):
    first, again = scenes(styles="unseen")[1], scenes(styles="unseen")[1]
    shifted = scenes(styles="unseen", first_seed=1_000_001)[0]
    for other in (again, shifted):
        assert np.array_equal(first["inputs"], other["inputs"])
        assert np.array_equal(first["data_samples"].gt_sem_seg.data, other["data_samples"].gt_sem_seg.data)
    assert not np.array_equal(first["inputs"], scenes(styles="seen")[1]["inputs"])
    assert first["inputs"].shape == (3, 64, 64) and first["data_samples"].gt_sem_seg.data.shape == (1, 64, 64)


def test_composed_scenes_are_those_of_the_composer_in_bgr(few_stuff_pictures):
    from ovseg.datasets.scenes import SceneComposer

    scene = SceneComposer(64)(1_000_002)
    sample = scenes()[2]
    assert np.array_equal(sample["inputs"].numpy(), scene.image[..., ::-1].transpose(2, 0, 1))
    assert np.array_equal(sample["data_samples"].gt_sem_seg.data[0].numpy(), scene.labels)


def test_candidates_of_the_protocols(few_stuff_pictures):
    full, v20 = scenes()[0]["data_samples"], scenes(candidates="v20")[0]["data_samples"]
    meta = scenes().metainfo
    assert full.candidates == list(range(len(meta["classes"])))
    assert len(v20.candidates) == 20 and v20.candidates == sorted(set(v20.candidates))
    assert set(v20.gt_sem_seg.data.unique().tolist()) <= set(v20.candidates)
    assert v20.candidates == scenes(candidates="v20")[0]["data_samples"].candidates
    assert v20.candidates != scenes(candidates="v20")[1]["data_samples"].candidates
    assert sorted(meta["groups"]["objects"] + meta["groups"]["stuff"]) == full.candidates
    assert scenes(candidates="v20", styles="unseen").metainfo["dataset_name"] == "scenes_unseen_v20"


@pytest.mark.slow
def test_the_scenes_package_and_the_table_need_no_mmseg():
    code = (
        "import sys, ovseg.datasets, ovseg.datasets.table; print('torch' in sys.modules);"
        "import ovseg.datasets.scenes; print('mmseg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
