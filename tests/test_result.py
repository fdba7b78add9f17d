"""A result answers, re-thresholds, and survives being saved and read back."""

import copy
import json
import pickle
from itertools import groupby

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

import ovseg
from ovseg.results import rle
from ovseg.results.provenance import Provenance, Weights
from ovseg.results.result import Result
from ovseg.text.vocabulary import Vocabulary

WORDS = Vocabulary.parse("cat|kitten, dog, sofa")
WITH_BACKGROUND = WORDS.with_background(0.3)
MANY = Vocabulary.parse([f"thing {i}" for i in range(300)])


def make(vocabulary=WORDS, height=12, width=9, seed=0, **changes):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, len(vocabulary), (-(-height // 3), -(-width // 3)))
    values = dict(
        labels=coarse.repeat(3, 0).repeat(3, 1)[:height, :width],
        scores=random.random((height, width), dtype=np.float32),
        margin=random.random((height, width), dtype=np.float32),
        image=random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        vocabulary=vocabulary,
        provenance=Provenance(
            "naclip",
            weights=Weights("tiny", "123", "123"),
            protocol={"window": 224, "threshold": 0.0},
            fingerprint="abc",
        ),
        path="photos/room.jpg",
    )
    return Result(**{**values, **changes})


# ---------------------------------------------------------------- RLE


def masks():
    random = np.random.default_rng(1)
    for height, width in [(1, 1), (1, 50), (50, 1), (7, 5), (40, 60), (300, 200)]:
        yield np.zeros((height, width), bool)
        yield np.ones((height, width), bool)
        for density in (0.01, 0.5, 0.95):
            yield random.random((height, width)) < density
        yield np.kron(random.random((height, width)) < 0.5, np.ones((6, 11), bool))


@pytest.mark.parametrize("mask", list(masks()), ids=lambda m: "x".join(map(str, m.shape)))
def test_rle_is_that_of_pycocotools(mask):
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = rle.encode(mask)
    assert ours == {"size": list(mask.shape), "counts": expected["counts"].decode()}
    runs = [len(list(run)) for _, run in groupby(mask.T.flatten().tolist())]
    plain = {"size": list(mask.shape), "counts": [0] * int(mask[0, 0]) + runs}
    for form in (ours, plain, expected, json.loads(json.dumps(plain))):
        assert np.array_equal(rle.decode(form), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (30, 50)])
@pytest.mark.parametrize("classes", [1, 2, 30])
def test_rle_of_all_labels_at_once(shape, classes):
    labels = np.random.default_rng(2).integers(0, classes, shape).astype(np.uint8)
    found = rle.encode_labels(labels)
    assert list(found) == np.unique(labels).tolist()
    for label, item in found.items():
        expected = coco.encode(np.asfortranarray((labels == label).astype(np.uint8)))
        assert item["rle"]["counts"] == expected["counts"].decode()
        assert item["bbox"] == coco.toBbox(expected).tolist() and item["area"] == coco.area(expected)
    some = {label: item["rle"] for label, item in found.items() if label % 3}
    assert np.array_equal(rle.decode_labels(some, shape, 255), np.where(labels % 3, labels, 255))
    assert (rle.decode_labels({}, shape, 7) == 7).all()
    with pytest.raises(ValueError, match="overlap"):
        rle.decode_labels({1: rle.encode(labels >= 0), 2: rle.encode(labels >= 0)}, shape, 7)
    with pytest.raises(ValueError, match="size"):
        rle.decode_labels({1: rle.encode(labels >= 0)}, (99, 1), 7)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        {"size": [2, 2]},
        {"size": [2], "counts": [4]},
        {"size": [2, 2], "counts": [5]},
        {"size": [2, 2], "counts": [-1, 5]},
        {"size": [2, 2], "counts": "P"},
        {"size": [2, 2], "counts": "\x01"},
        {"size": [2, 2], "counts": "ooooooooooooooo0"},
    ],
)
def test_broken_rle(bad):
    with pytest.raises(ValueError, match="RLE"):
        rle.decode(bad)


def test_rle_needs_two_dimensions():
    with pytest.raises(ValueError, match="two dimensions"):
        rle.encode(np.zeros(3))


# ---------------------------------------------------------------- asking


def test_areas_present_and_masks():
    labels = np.zeros((4, 5), int)
    labels[0, 0], labels[1:] = 1, 2
    result = make(height=4, width=5, labels=labels)
    assert result.present == [2, 0, 1] and result.labels.dtype == np.uint8
    assert result.areas == {"sofa": 0.75, "cat": 0.2, "dog": 0.05} and list(result.areas) == ["sofa", "cat", "dog"]
    assert list(result.masks()) == ["sofa", "cat", "dog"]
    assert np.array_equal(result.mask(np.uint8(2)), result.mask("sofa"))
    assert result.mask("dog").sum() == 1 and np.array_equal(result.mask("kitten"), result.mask(0))
    assert sum(mask.sum() for mask in result.masks().values()) == 20
    assert result.names == WORDS.names and result.colors == WORDS.colors
    assert repr(result) == "Result(5 x 4, 3 of 3 classes: sofa 75.0%, cat 20.0%, dog 5.0%, method naclip)"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dgo", "dog"),
        *((id_, "whole number from 0 to 2") for id_ in (3, -1, 2.7, 1.0, np.float32(1), True, None, [0], np.nan)),
    ],
)
def test_unknown_class(name, message):
    with pytest.raises(ValueError, match=message):
        make().mask(name)


@pytest.mark.parametrize(("classes", "dtype"), [(255, np.uint8), (256, np.uint16), (1000, np.uint16)])
def test_smallest_type(classes, dtype):
    vocabulary = Vocabulary.parse([f"thing {i}" for i in range(classes)])
    labels = np.full((2, 2), classes - 1)
    labels[0, 0] = np.iinfo(dtype).max
    result = make(vocabulary, 2, 2, labels=labels)
    assert result.labels.dtype == dtype and result.unlabeled == np.iinfo(dtype).max
    assert result.present == [classes - 1] and result.areas == {f"thing {classes - 1}": 0.75}
    assert result.mask(result.unlabeled).sum() == 1


def test_tensors_and_types():
    labels = torch.zeros(2, 3, dtype=torch.long)
    result = Result(labels=labels, scores=torch.full((2, 3), 1.0000001, dtype=torch.float64), vocabulary=WORDS)
    assert result.scores.dtype == np.float32 and result.scores.max() == 1 and result.margin is None
    assert Result(labels=labels, scores=np.zeros((2, 3), np.float16), vocabulary=WORDS).scores.dtype == np.float16
    assert result.plot().mode == "RGB"


def test_scores_are_made_when_first_read():
    calls, given = [], make()

    def confidence():
        calls.append(1)
        return torch.from_numpy(given.scores), given.margin.astype(np.float64)

    def lazy():
        calls.clear()
        return make(scores=confidence, margin=None)

    assert lazy().plot().mode == "RGB" and lazy().present == given.present and not calls
    for read in (lambda r: r, copy.copy, lambda r: pickle.loads(pickle.dumps(r)), lambda r: r.rethreshold(0.3)):
        result = read(lazy())
        assert (result.scores == given.scores).all() and (result.margin == given.margin).all() and len(calls) == 1
    assert (
        lazy().to_dict() == given.to_dict() and (lazy().rethreshold(0.4).labels == given.rethreshold(0.4).labels).all()
    )
    with pytest.raises(AttributeError, match="no attribute 'score'"):
        lazy().score  # noqa: B018
    with pytest.raises(ValueError, match="scores must be"):
        make(scores=lambda: (given.scores[1:], given.margin)).margin  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full((12, 9), 3)}, "another vocabulary"),
        ({"labels": np.full((12, 9), -1)}, "another vocabulary"),
        ({"labels": np.zeros((12, 9))}, "integers"),
        ({"labels": np.zeros((0, 9), int)}, ">= 1"),
        ({"winners": np.zeros((1, 1), int)}, "shape of the labels"),
        ({"scores": np.zeros((9, 12))}, "shape of the labels"),
        ({"scores": np.full((12, 9), 7.0)}, "probabilities"),
        ({"scores": np.full((12, 9), np.nan)}, "probabilities"),
        ({"margin": np.zeros((12, 9), int)}, "floats"),
        ({"image": np.zeros((9, 12, 3), np.uint8)}, "image of a result"),
    ],
)
def test_bad_parts(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize("vocabulary", [WORDS, WITH_BACKGROUND, MANY])
def test_rethreshold(vocabulary):
    result = make(vocabulary)
    before = result.labels.copy()
    fallback = 0 if vocabulary is WITH_BACKGROUND else result.unlabeled
    changed = result.rethreshold(0.4)
    low = result.scores < 0.4
    assert low.any() and (changed.labels[low] == fallback).all()
    assert np.array_equal(changed.labels[~low], result.labels[~low])
    assert np.array_equal(result.labels, before) and changed.labels.dtype == result.labels.dtype
    assert changed.protocol == {"window": 224, "threshold": 0.4} and result.protocol["threshold"] == 0
    # In any order, up or down, the last threshold alone counts.
    assert np.array_equal(changed.rethreshold(0.9).rethreshold(0.1).labels, result.rethreshold(0.1).labels)
    assert np.array_equal(changed.rethreshold(0).labels, before)


def test_winners_let_a_threshold_be_lowered():
    winners = np.full((2, 2), 1)
    scores = np.float32([[0.1, 0.2], [0.3, 0.4]])
    result = Result(np.where(scores < 0.25, 0, winners), scores, WITH_BACKGROUND, winners=winners)
    assert result.rethreshold(0.15).labels.tolist() == [[0, 1], [1, 1]]


def test_bad_threshold():
    for threshold in (-0.1, 1.1, float("nan"), "0.3", None, [0.3], True):
        with pytest.raises(ValueError, match="from 0 to 1"):
            make().rethreshold(threshold)
    with pytest.raises(ValueError, match="no scores"):
        make(scores=None).rethreshold(0.5)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("vocabulary", [WORDS, WITH_BACKGROUND, MANY])
@pytest.mark.parametrize("threshold", [0, 0.4, 1])
def test_round_trip(tmp_path, vocabulary, threshold):
    result = make(vocabulary).rethreshold(threshold)
    paths = result.save(tmp_path / "new" / "out", formats=("json", "scores", "labels", "overlay"))
    assert list(paths) == ["overlay", "labels", "scores", "json"]
    names = ["room.json", "room_labels.png", "room_overlay.png", "room_scores.npz"]
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == names  # and no temporary file
    back = Result.load(paths["json"])
    assert np.array_equal(back.labels, result.labels) and back.labels.dtype == result.labels.dtype
    assert np.array_equal(back.winners, result.winners)
    assert np.allclose(back.scores, result.scores, atol=1e-3) and np.allclose(back.margin, result.margin, atol=1e-3)
    assert back.vocabulary == vocabulary and back.vocabulary.hash == vocabulary.hash
    assert (back.method, back.weights, back.path) == (result.method, result.weights, result.path)
    assert back.protocol == result.protocol and back.image is None and back.areas == result.areas
    assert np.array_equal(back.rethreshold(0).labels, make(vocabulary).labels)


def test_json(tmp_path):
    result = make().rethreshold(0.2)
    data = json.loads(result.save(tmp_path)["json"].read_text(encoding="utf-8"))
    assert {**data, "files": None} == {**json.loads(result.to_json()), "files": None, "checksum": data["checksum"]}
    assert data["files"] == {"overlay": "room_overlay.png", "labels": "room_labels.png"}
    assert data["ovseg_version"] == ovseg.__version__ and data["vocabulary_hash"] == WORDS.hash
    assert data["image"] == {"path": "photos/room.jpg", "width": 9, "height": 12}
    assert data["names"] == list(WORDS.names) and data["colors"][0] == "#e69f00"
    assert sum(c["pixels"] for c in data["classes"]) + data["unlabeled"]["pixels"] == 12 * 9
    for item in data["classes"]:
        mask = result.mask(item["name"])
        assert item["pixels"] == mask.sum() == coco.area(item["segmentation"])
        assert item["fraction"] == pytest.approx(mask.mean(), abs=1e-6)
        assert item["mean_score"] == pytest.approx(result.scores[mask].mean(), abs=1e-5)
        assert item["bbox"] == coco.toBbox(item["segmentation"]).tolist()


@pytest.mark.parametrize(("vocabulary", "mode"), [(WORDS, "P"), (WITH_BACKGROUND, "P"), (MANY, "I;16")])
def test_label_png_holds_the_ids(tmp_path, vocabulary, mode):
    result = make(vocabulary).rethreshold(0.3)
    with Image.open(result.save(tmp_path, formats="labels")["labels"]) as image:
        assert image.mode == mode
        assert np.array_equal(np.asarray(image), result.labels)
        if mode == "P":
            colors = np.array([*vocabulary.colors, *[(0, 0, 0)] * (256 - len(vocabulary))], np.uint8)
            assert np.array_equal(np.asarray(image.convert("RGB")), colors[result.labels])


def test_image_comes_back_if_it_is_there(tmp_path):
    result = make()
    path = tmp_path / "room.png"
    Image.fromarray(result.image).save(path)
    saved = make(path=path).save(tmp_path / "out")["json"]
    assert np.array_equal(Result.load(saved).image, result.image)
    Image.fromarray(result.image[:5]).save(path)
    assert Result.load(saved).image is None


def test_without_scores(tmp_path):
    result = Result.load(make().save(tmp_path)["json"])
    assert result.scores is None and result.to_dict()["classes"][0]["mean_score"] is None
    assert list(result.save(tmp_path, "again")) == ["overlay", "labels", "json"]
    with pytest.raises(ValueError, match="no scores"):
        result.save(tmp_path, formats=["scores"])


def test_a_failed_save_leaves_nothing_new(tmp_path, monkeypatch):
    result = make()
    before = result.save(tmp_path)["overlay"].read_bytes()

    def fail(self, file, *args, **kwargs):
        with open(file, "wb") as stream:
            stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        result.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["room.json", "room_labels.png", "room_overlay.png"]
    assert (tmp_path / "room_overlay.png").read_bytes() == before


def test_saving_is_repeatable(tmp_path):
    formats = ("overlay", "labels", "scores", "json")
    first, second = make().save(tmp_path / "a", formats=formats), make().save(tmp_path / "b", formats=formats)
    assert all(first[kind].read_bytes() == second[kind].read_bytes() for kind in formats)


def test_names_and_paths_of_any_script(tmp_path):
    vocabulary = Vocabulary.parse(["猫 🐈", "שולחן", "a/b: c?"])
    path = b"photos/\xff\xe9.jpg".decode("utf-8", "surrogateescape")
    back = Result.load(make(vocabulary, path=path).save(tmp_path, "x")["json"])
    assert back.names == vocabulary.names and str(back.path) == path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"formats": ["pdf"]}, "formats are overlay, labels, scores, json"),
        ({"stem": "a/b"}, "without folder"),
        ({"stem": ""}, "without folder"),
        ({"folder": "file.txt"}, "it is a file"),
    ],
)
def test_bad_save(tmp_path, arguments, message):
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(ValueError, match=message):
        make().save(tmp_path / arguments.pop("folder", ""), **arguments)


def test_bad_load(tmp_path):
    with pytest.raises(FileNotFoundError, match="Result.save"):
        Result.load(tmp_path / "none.json")
    good = json.loads(make().save(tmp_path, "good", formats=("scores", "json"))["json"].read_text())
    cut = good["classes"][0] | {"segmentation": {"size": [12, 9], "counts": "05"}}
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    for text in (
        "",
        "[]",
        "{}",
        json.dumps(good)[:-50],
        json.dumps(good | {"format_version": 99}),
        json.dumps({k: v for k, v in good.items() if k != "classes"}),
        json.dumps(good | {"classes": [cut]}),
        json.dumps(good | {"names": ["other"]}),
        json.dumps(good | {"files": {"scores": "broken.npz"}}),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="bad.json is not a result"):
            Result.load(tmp_path / "bad.json")


def test_plot_leaves_the_background_as_it_is():
    labels = np.zeros((300, 300), int)
    labels[:100] = 1
    result = make(WITH_BACKGROUND, 300, 300, labels=labels)
    picture = np.asarray(result.plot(legend=False))
    assert picture.shape == result.image.shape
    assert np.array_equal(picture[110:], result.image[110:]) and not np.array_equal(picture[:90], result.image[:90])
    assert result.plot().width > 300 and result._repr_png_().startswith(b"\x89PNG")
