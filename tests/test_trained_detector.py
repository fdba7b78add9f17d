"""Trained detectors by ``ovseg.load`` and ``ovseg detect``: a checkpoint alone, pictures and words apart."""

import json

import numpy as np
import pytest
import torch

import ovseg
from ovseg.compat.checkpoint import read_checkpoint_with_meta, save_safetensors
from tests.conftest import ROOT

CHECKPOINT = ROOT / "configs/fvit/fvit_windows_tiny_scenes.safetensors"
SCENE = ROOT / "demo/scene.png"


@pytest.fixture(scope="module")
def detector():
    return ovseg.load("F-ViT", str(CHECKPOINT), score_threshold=0.2, inside=0.9)


def test_words_are_found_in_the_scene(detector):
    found = detector(SCENE, ["bus", "strawberry", "owl", "dog"])
    assert {"bus", "strawberry", "owl"} <= set(found.names) and "dog" not in found.names
    owl = found.boxes[found.names.index("owl")]
    assert owl[0] > 128 and owl[1] > 100 and (found.scores >= 0.2).all()
    assert all(mask["size"] == [256, 256] for mask in found.masks) and found.weights.endswith("(d7f9a86cee98)")


def test_words_change_without_another_pass_of_the_tower(detector, monkeypatch):
    passes, extract = [], detector.engine.model.extract_feat
    monkeypatch.setattr(detector.engine.model, "extract_feat", lambda inputs: passes.append(1) or extract(inputs))
    detector.set_image(SCENE)
    names = [detector.set_classes(words).predict().names for words in (["owl"], ["bus", "owl"], ["owl"])]
    assert len(passes) == 1 and names[0] == names[2] and set(names[0]) == {"owl"} and "bus" in names[1]


def test_given_boxes(detector):
    boxes = [[140, 130, 232, 236], [31, 29, 144, 134]]
    found = detector.set_classes(["owl", "bus"]).set_image(SCENE).predict(boxes=boxes)
    assert set(found.names) == {"owl", "bus"}
    with pytest.raises(ValueError, match="proposes its own regions"):
        detector.predict(masks=np.ones((1, 256, 256), bool))


def test_settings_are_those_of_the_config(detector):
    alone = ovseg.load_detector("fvit", str(CHECKPOINT), ["owl"], vlm=False)
    assert alone.provenance.fingerprint != detector.set_classes(["owl"]).provenance.fingerprint
    with pytest.raises(ValueError, match="vlmm"):
        ovseg.load("fvit", str(CHECKPOINT), vlmm=False)
    with pytest.raises(ValueError, match="guided: for methods without training"):
        ovseg.load("fvit", str(CHECKPOINT), guided=3)


def test_checkpoints_that_do_not_do(tmp_path):
    with pytest.raises(ValueError, match="fvit is trained"):
        ovseg.load("fvit")
    with pytest.raises(ValueError, match="a checkpoint of FViT, not of RegionCLIP"):
        ovseg.load("regionclip", str(CHECKPOINT))
    with pytest.raises(FileNotFoundError):
        ovseg.load("fvit", str(tmp_path / "none.safetensors"))
    save_safetensors(tmp_path / "plain.safetensors", {"a": torch.ones(2)})
    with pytest.raises(ValueError, match="holds no config"):
        ovseg.load("fvit", str(tmp_path / "plain.safetensors"))


def test_the_config_inside_is_that_beside():
    from ovseg.engine.config import load_config, read_dump

    inside = read_dump(read_checkpoint_with_meta(CHECKPOINT)[1]["config"])
    assert inside["model"] == load_config(CHECKPOINT.with_suffix(".py")).model.to_dict()


def test_the_command(tmp_path):
    from typer.testing import CliRunner

    from ovseg.cli import app

    words = ["-c", "owl, bus", "-m", "fvit", "--weights", str(CHECKPOINT), "-o", str(tmp_path)]
    done = CliRunner().invoke(app, ["detect", str(SCENE), *words])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "scene_detections.json").read_text())
    assert record["method"] == "fvit"
