"""Boxes from files: each picture gets its own, in pixels, or a sentence says why not."""

import json

import numpy as np
import pytest
from PIL import Image

from ovseg.predict.box_file import CHOICES, BoxError, BoxFile

from .test_cli import QUICK, assert_one_paragraph, ovseg, photo  # noqa: F401 (fixtures)

SIZE = (100, 200)  # H, W


def write(path, content: str):
    path.write_text(content, encoding="utf-8")
    return path


def table(path, *names: str):
    rows = (f"{name},{index},0,{index + 5},5" for index, name in enumerate(names))
    return write(path / "boxes.csv", "\n".join(["image,x1,y1,x2,y2", *rows]))


@pytest.mark.parametrize(
    "names, pictures, first",
    [
        (["a/cat.png", "b/cat.png"], ["p/a/cat.png", "p/b/cat.png"], [0, 1]),
        (["b/cat.png", "./a/cat.png"], ["p/a/cat.png", "p/b/cat.png"], [1, 0]),
        (["b\\cat.png", "a\\cat.png"], ["p/a/cat.png", "p/b/cat.png"], [1, 0]),
        (["/old/a/cat.png"], ["p/a/cat.png", "p/b/cat.png"], [0, None]),
        (["/old/cat.png"], ["new/cat.png"], [0]),
        (["cat.png", "dog.png"], ["x/dog.png", "y/bird.png"], [1, None]),
        (["cat.png", "b/cat.png"], ["p/b/cat.png"], [1]),
        (["cat.png"], ["https://host/a/cat.png?size=3"], [0]),
    ],
)
def test_paths_are_matched_by_their_ends(tmp_path, names, pictures, first):
    boxes = BoxFile(table(tmp_path, *names), pictures)
    found = [boxes.of(picture, SIZE)[:, 0].tolist() for picture in pictures]
    assert found == [[] if index is None else [index] for index in first]
    assert boxes.unnamed == [picture for picture, index in zip(pictures, first, strict=True) if index is None]


@pytest.mark.parametrize(
    "names, pictures, parts",
    [
        (["cat.png"], ["p/a/cat.png", "p/b/cat.png"], ["which may be", "p/a/cat.png", "p/b/cat.png"]),
        (["/old/cat.png"], ["p/a/cat.png", "p/b/cat.png"], ["which may be"]),
        (["/old/cat.png", "cat.png"], ["p/cat.png"], ["in several ways"]),
        (["dog.png"], ["cat.png"], ["none of the pictures", "dog.png", "cat.png"]),
        (["a/cat.png"], ["p/b/cat.png"], ["none of the pictures"]),
        (["cat.png", ""], ["cat.png"], ["some rows name an image and some do not"]),
    ],
)
def test_names_that_do_not_decide(tmp_path, names, pictures, parts):
    with pytest.raises(ValueError) as caught:
        BoxFile(table(tmp_path, *names), pictures)
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize(
    "box_format, values",
    [
        ("xyxy", [20, 10, 60, 50]),
        ("xywh", [20, 10, 40, 40]),
        ("cxcywh", [40, 30, 40, 40]),
        ("xyxy-normalized", [0.1, 0.1, 0.3, 0.5]),
        ("xywh_normalized", [0.1, 0.1, 0.2, 0.4]),
        ("CXCYWH-normalized", [0.2, 0.3, 0.2, 0.4]),
    ],
)
def test_formats(tmp_path, box_format, values):
    path = write(tmp_path / "b.json", json.dumps([values]))
    assert np.allclose(BoxFile(path, ["a.png"], box_format).of("a.png", SIZE), [[20, 10, 60, 50]])
    assert len(CHOICES) == 6


@pytest.mark.parametrize(
    "columns, values", [("x,y,width,height", "20,10,40,40"), ("cx,cy,width,height", "40,30,40,40")]
)
def test_columns_tell_the_format(tmp_path, columns, values):
    path = write(tmp_path / "b.csv", f"{columns}\n{values}\n")
    assert BoxFile(path, ["a.png"]).of("a.png", SIZE).tolist() == [[20, 10, 60, 50]]


@pytest.mark.parametrize(
    "content, part",
    [
        ("[[0.1, 0.2, 0.5, 0.6], [0.4, 0.1, 0.9, 0.9]]", "look divided by width and height"),
        ("[[50, 40, 20, 10], [1, 2, 3, 4]]", "1 of 2 boxes"),
        ("[[20, 20, NaN, 100]]", "nan"),
        ("[[20, 20, 1e999, 100]]", "inf"),
        ("[[20, 20, true, 100]]", "True"),
        ("[[20, 20, null, 100]]", "None"),
        ("[5]", "four numbers"),
        ("5", "it holds int"),
        ("[[[]]]", "four numbers"),
        ('{"images": 3, "annotations": []}', "holds no boxes"),
        ('{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 2, "bbox": [1,1,2,2]}]}', "2"),
        (
            '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "bbox": [9,9,-2,2]}]}',
            "negative",
        ),
    ],
)
def test_numbers_that_are_no_boxes(tmp_path, content, part):
    with pytest.raises(ValueError) as caught:
        BoxFile(write(tmp_path / "b.json", content), ["a.png"])
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_an_explicit_format_is_believed(tmp_path):
    path = write(tmp_path / "b.json", "[[0, 0, 1, 1]]")
    assert BoxFile(path, ["a.png"], "xyxy").of("a.png", SIZE).tolist() == [[0, 0, 1, 1]]
    with pytest.raises(ValueError, match="Did you mean 'xywh'"):
        BoxFile(path, ["a.png"], "xyhw")


def test_sizes_are_those_of_the_turned_picture(tmp_path):
    image = dict(id=1, file_name="a.png", width=200, height=100)
    coco = dict(images=[image], annotations=[dict(image_id=1, bbox=[1, 2, 3, 4])])
    boxes = BoxFile(write(tmp_path / "b.json", json.dumps(coco)), ["a.png"])
    assert boxes.of("a.png", (100, 200)).tolist() == [[1, 2, 4, 6]]
    with pytest.raises(BoxError, match="EXIF"):
        boxes.of("a.png", (200, 100))
    with pytest.raises(BoxError, match="tells of 200 x 100"):
        boxes.of("a.png", (50, 100))


def test_the_command(ovseg, photo, tmp_path, picture):  # noqa: F811
    for name in "ab":
        (tmp_path / "dup" / name).mkdir(parents=True)
        Image.fromarray(picture).save(tmp_path / "dup" / name / "cat.png")
    table(tmp_path, "b/cat.png", "a/cat.png")
    words = ("-c", "cat, dog", "--templates", "name", "--readout", "roi")
    code, out, _ = ovseg("classify-boxes", "dup", "--recursive", "--boxes", "boxes.csv", *words)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [[each["box"][0] for each in row["boxes"]] for row in rows] == [[1], [0]]
    write(tmp_path / "norm.json", "[[0.1, 0.2, 0.5, 0.6]]")
    outcome = ovseg("classify-boxes", "photo.png", "--boxes", "norm.json", *words)
    assert_one_paragraph(outcome, "between 0 and 1", "--box-format")
    normalized = ("--boxes", "norm.json", "--box-format", "xyxy-normalized")
    code, out, _ = ovseg("classify-boxes", "photo.png", *normalized, *words)
    assert code == 0 and json.loads(out)["boxes"][0]["box"] == [13, 18, 65, 54]
    assert ovseg("detect", "photo.png", "-c", "cat, dog", *normalized, "--templates", "name")[0] == 0
    assert_one_paragraph(ovseg("detect", "photo.png", "-c", "cat", "--box-format", "xywh"), "--boxes")
