"""``ovseg check-data``: what is wrong with labels is told per picture, and the histogram counts every pixel."""

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from typer.testing import CliRunner

from ovseg.cli import app
from ovseg.engine.check_data import bare_dataset, check_split
from tests.conftest import ROOT

CONFIG = """
default_scope = "ovseg"
train_dataloader = dict(batch_size=1, dataset=dict(type="SeededDataset", dataset=dict(
    type="mmseg.BaseSegDataset", data_root=r"{root}", data_prefix=dict(img_path="images", seg_map_path="labels"),
    img_suffix=".png", metainfo=dict(classes=("cat", "dog", "sky")),
    pipeline=[
        dict(type="mmseg.LoadImageFromFile"), dict(type="mmseg.LoadAnnotations"),
        dict(type="mmseg.RandomCrop", crop_size=(2, 2)), dict(type="mmseg.PackSegInputs"),
    ],
)))
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    (tmp_path / "config.py").write_text(CONFIG.format(root=tmp_path))

    def add(name, labels, size=None):
        labels = np.array(labels, np.uint8)
        height, width = size or labels.shape
        Image.new("RGB", (width, height)).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(labels).save(tmp_path / "labels" / f"{name}.png")

    return tmp_path, add


def test_counts_and_problems(folder):
    root, add = folder
    add("a", [[0, 1, 1, 255], [0, 0, 1, 255]])
    add("b", [[1, 1], [7, 1]])
    add("c", [[2, 2], [2, 2]], size=(3, 3))
    add("d", [[255, 255], [255, 255]])
    add("e", [[0, 0], [0, 0]])
    (root / "labels" / "e.png").write_bytes(b"broken")
    report = check_split(Config.fromfile(root / "config.py"), "train")
    assert report.pixels.tolist() == [3, 6, 0] and report.images.tolist() == [1, 2, 0]
    assert (report.count, report.ignored, report.total) == (3, 6, 16)
    told = {line.split(":")[0].rpartition("/")[2]: line for line in report.problems}
    assert "ids [7]" in told["b.png"] and "0 to 2" in told["b.png"]
    assert "(2, 2) pixels, the picture (3, 3)" in told["c.png"]
    assert "no pixel of any class" in told["d.png"] and "e.png" in told and "a.png" not in told
    assert check_split(Config.fromfile(root / "config.py"), "train", limit=1).problems == []


def test_the_command(folder):
    root, add = folder
    add("a", [[0, 1, 1, 255], [0, 0, 1, 255]])
    done = CliRunner().invoke(app, ["check-data", str(root / "config.py")])
    assert done.exit_code == 0 and "No problem found" in done.output and "none" in done.output
    add("b", [[9, 9], [9, 9]])
    done = CliRunner().invoke(app, ["check-data", str(root / "config.py")])
    assert done.exit_code == 1 and "ids [9]" in done.output.replace("\n", "")
    with pytest.raises(ValueError, match="no val_dataloader; it has train"):
        check_split(Config.fromfile(root / "config.py"), "val")


@pytest.mark.slow
def test_a_config_of_the_zoo():
    done = CliRunner().invoke(
        app, ["check-data", str(ROOT / "configs/catseg/catseg_tiny_scenes.py"), "--limit", "2", "--split", "train"]
    )
    assert done.exit_code == 0 and "No problem found" in done.output, done.output


def test_wrappers_are_seen_through():
    assert bare_dataset(dict(type="A", dataset=dict(type="B", dataset=dict(type="C")))) == dict(type="C")
