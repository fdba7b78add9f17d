"""The Python API: load, set_classes, set_image, predict; and what people get wrong."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import ovseg
from ovseg.compat import notice
from ovseg.pictures.pixels import ImageError
from ovseg.predict.build import dense_config
from ovseg.predict.protocol import Protocol
from ovseg.registry import DENSE
from ovseg.towers import missing
from ovseg.towers.vit import ViTTower

FAST = dict(templates="name", short_side=64, window=48, stride=32, refine=[])


@pytest.fixture
def model(vit):
    return ovseg.load("sclip", tower=vit, classes=["cat", "dog", "sofa", "floor"], **FAST)


@pytest.fixture(scope="module")
def tiny():
    """The embedded model, with its notice kept off this file's stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ovseg.predict.build.say_once", lambda notice: None)
        return ovseg.load("naclip", templates="name", refine=[], cache=False)


def assert_equal(first, second):
    assert (first.labels == second.labels).all()
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-5)
    np.testing.assert_allclose(first.margin, second.margin, atol=1e-5)


def test_a_result_carries_everything(model, picture):
    result = model(picture)
    assert result.labels.shape == result.scores.shape == result.margin.shape == (90, 130)
    assert result.names == ("cat", "dog", "sofa", "floor") and (result.image == picture).all()
    assert result.scores.min() >= 0.25 - 1e-6 and result.margin.min() >= 0  # a winner of four has at least a quarter
    assert result.method == "sclip" and result.weights == "toy vit 0 (toy-vit-0)"
    protocol = model.pipeline.protocol
    assert result.protocol == protocol.to_dict() and result.provenance.fingerprint == protocol.fingerprint


@pytest.mark.parametrize("method", ovseg.list_methods(ready=True))
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_every_method_on_the_towers_it_reads(method, kind, request, picture):
    if missing(request.getfixturevalue(kind), DENSE.get(dense_config(method)["type"]).requires):
        with pytest.raises(ValueError, match=kind):
            ovseg.load(method, tower=request.getfixturevalue(kind), classes="cat", templates="name")(picture)
        return
    small = dict(short_side=64, window=48, stride=32, templates="name")
    result = ovseg.load(method, tower=request.getfixturevalue(kind), classes="cat, dog", **small)(picture)
    assert result.labels.shape == (90, 130) and np.isfinite(result.scores).all() and result.method == method


def test_published_settings_and_changes(vit):
    assert ovseg.load("clearclip", tower=vit).pipeline.protocol == Protocol(448, window=448, stride=224, logit_scale=50)
    assert ovseg.load("maskclip", tower=vit).pipeline.protocol.window is None
    changed = ovseg.load("NaClip", tower=vit, short_side=200, refine=[]).pipeline
    assert changed.protocol == Protocol(200) and not changed.refiners
    assert len(ovseg.load("naclip", tower=vit).pipeline.refiners) == 1
    assert len(ovseg.load("sclip", tower=vit, refine="pamr").pipeline.refiners) == 1
    assert ovseg.load(dict(type="NACLIP", sigma=2.0), tower=vit).pipeline.dense.sigma == 2.0


def test_changing_the_words_does_not_run_the_tower(model, picture, monkeypatch):
    runs = []
    start = ViTTower.start
    monkeypatch.setattr(ViTTower, "start", lambda self, *a, **k: runs.append(1) or start(self, *a, **k))
    first = model.set_image(picture).predict()
    assert runs
    runs.clear()
    second = model.set_classes(["floor", "sofa", "dog", "cat"]).predict()
    third = model.set_classes(ovseg.Vocabulary.parse(["bird"]).with_background("none")).predict()
    assert not runs and third.areas == {"bird": 1.0}
    assert (second.labels == 3 - first.labels).all()  # the words are permuted, so is the result
    np.testing.assert_allclose(second.scores, first.scores, atol=1e-6)


def test_sources(model, picture, tmp_path):
    """One picture gives a result, several give a list, whatever they come as."""
    expected = model(picture)
    for name in ("b.png", "a.png"):
        Image.fromarray(picture).save(tmp_path / name)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    for source in (Image.fromarray(picture), tensor, tensor / 255, tmp_path / "a.png", str(tmp_path / "a.png")):
        assert_equal(model(source), expected)
    assert model(tmp_path / "a.png").path == tmp_path / "a.png" and expected.path is None
    assert [r.path.name for r in model(tmp_path)] == ["a.png", "b.png"]
    assert [r.path.name for r in model(str(tmp_path / "*.png"))] == ["a.png", "b.png"]
    mixed = model([picture, tmp_path / "b.png"])
    assert len(mixed) == 2 and isinstance(model([picture]), list)
    for result in mixed:
        assert_equal(result, expected)


def test_many_pictures_equal_one_by_one(model, picture):
    pictures = [picture, picture[:40, :70], picture[::-1].copy(), picture[:1, :1]]
    for together, source in zip(model(pictures), pictures, strict=True):
        assert_equal(together, model(source))


def test_stream_goes_on_after_a_broken_picture(model, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    Image.fromarray(picture).save(tmp_path / "c.png")
    outcomes = [outcome for _, outcome in model.stream(tmp_path)]
    assert isinstance(outcomes[1], ImageError) and "b.png" in str(outcomes[1])
    assert_equal(outcomes[0], outcomes[2])
    with pytest.raises(ImageError, match="b.png"):
        model(tmp_path)


def test_classes_in_the_call(model, picture):
    assert model(picture, "cat, dog").names == ("cat", "dog")
    assert model.vocabulary.names == model(picture).names == ("cat", "dog", "sofa", "floor")


def test_synonyms_count_for_their_class(model, picture):
    plain = model(picture, ["cat", "kitten", "dog"])
    merged = model(picture, ["cat|kitten", "dog"])
    assert merged.names == ("cat", "dog") and set(np.unique(merged.labels)) <= {0, 1}
    assert (merged.labels == np.array([0, 0, 1])[plain.labels]).all()
    np.testing.assert_allclose(merged.scores, plain.scores, atol=1e-6)


def test_background_threshold(model, picture):
    """Below the threshold: class 0, which has no word of its own; the record is that of the applied settings."""
    plain = model(picture, ["cat", "dog", "sofa"])
    level = float(np.median(plain.scores))
    vocabulary = ovseg.Vocabulary.parse(["cat", "dog", "sofa"]).with_background(level)
    result = model(picture, vocabulary)
    assert result.names[0] == "background"
    below = plain.scores < level
    assert below.any() and (result.labels == np.where(below, 0, plain.labels + 1)).all()
    assert result.protocol["threshold"] == pytest.approx(level)
    assert result.provenance.fingerprint == model.pipeline.protocol.but(threshold=level).fingerprint
    assert (result.rethreshold(0).labels == plain.labels + 1).all()
    assert model(picture, vocabulary.with_background("none")).names == ("cat", "dog", "sofa")


def test_background_words(model, picture):
    """Class 0 competes through its words as any class does through its synonyms."""
    words = ovseg.Vocabulary.parse(["cat", "dog"]).with_background("sky, wall")
    result = model(picture, words)
    same = model(picture, ["sky|wall", "cat", "dog"])
    assert result.names == ("background", "cat", "dog") and (result.labels == same.labels).all()
    np.testing.assert_allclose(result.scores, same.scores, atol=1e-6)
    both = model(picture, words.with_background({"kind": "words", "words": ["sky", "wall"], "threshold": 1.0}))
    assert (both.labels == 0).all() and both.protocol["threshold"] == 1


@pytest.mark.parametrize(
    "classes, message",
    [
        ([], "empty"),
        ("", "empty"),
        (["cat", " "], "blank"),
        (["cat", "dog", "Cat"], "repeats 'cat'"),
        (["cat", "very " * 80 + "old sofa"], "this tower reads at most 77"),
        (["cat", 3], "must be text"),
        ("no/such/words.txt", "does not exist"),
    ],
)
def test_bad_words_leave_the_old_ones(model, picture, classes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        model.set_classes(classes)
    assert "\n" not in str(caught.value)
    assert model(picture).names == ("cat", "dog", "sofa", "floor")


def test_words_of_any_script(model, picture):
    names = ["🦊", "кошка", "猫", "قطة", "Ærøskøbing", "a {} b", "{0}", "C++", "x" * 60]
    result = model(picture, names)
    assert result.names == tuple(names) and np.isfinite(result.scores).all()
    text = model.encoder(names)
    assert (text @ text.T - torch.eye(len(names))).max() < 0.9999  # no two of them are read alike


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(method="naclp"), "unknown method 'naclp'. Did you mean naclip"),
        (dict(method="zzz"), "There are: .*clearclip.*sclip"),
        (dict(method=None), "a method is a name"),
        (dict(method={"sigma": 2.0}), "a method is a name"),
        (dict(method=dict(type="NACLIP", sgma=2.0)), "sigma"),
        (dict(short_sides=3), "Did you mean 'short_side'"),
        (dict(window=10**6, stride=0), "stride=0"),
        (dict(refine="pamrr"), "unknown refiner 'pamrr'. Did you mean pamr"),
        (dict(templates="imagenet_81"), "placeholder"),
        (dict(scorer=dict(type="DenoisedScore", key_norm="rows")), "channels"),
    ],
)
def test_bad_arguments(arguments, message, vit):
    with pytest.raises(ValueError, match=message):
        ovseg.load(tower=vit, **arguments)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "mps", "cuda:x"])
def test_unknown_device(device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(ValueError, match=f"device '{device}' is not available here .*auto or cpu"):
        ovseg.load("sclip", device=device)


def test_nothing_to_predict_yet(vit, picture):
    model = ovseg.load("sclip", tower=vit, **FAST)
    with pytest.raises(ValueError, match="set_image"):
        model.predict()
    with pytest.raises(ValueError, match="set_classes"):
        model.set_image(picture).predict()
    with pytest.raises(ImageError, match="channels-first"):
        model.set_image(np.zeros((3, 30, 40), np.uint8))


def test_a_tower_without_words(vit):
    from ovseg.testing.toys import toy_clip
    from ovseg.towers.build import build_visual

    visual = {k.removeprefix("visual."): v for k, v in toy_clip().state_dict().items() if k.startswith("visual.")}
    with pytest.raises(ValueError, match="no text model"):
        ovseg.load("sclip", tower=build_visual(visual, heads=2))


def test_the_embedded_model_says_what_it_is(capsys, monkeypatch):
    monkeypatch.setattr(notice, "_said", set())
    for method in ("sclip", "vanilla"):
        ovseg.load(method)
    out, err = capsys.readouterr()
    assert not out and err.count("embedded demo model") == 1


def test_words_the_embedded_model_has_never_learned(tiny):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tiny.set_classes(["cat", "xylograph", "dog", "theodolite"])
        tiny.set_classes(["cat", "Dog"])
    assert len(caught) == 1 and "xylograph, theodolite" in str(caught[0].message)


def test_the_embedded_model_predicts(tiny, picture):
    result = tiny(picture, ["grass", "sky", "cat"])
    assert result.labels.shape == (90, 130) and tiny.pipeline.tower.card.hash in result.weights


PREDICTION = """
import sys, numpy as np, ovseg
result = ovseg.load("naclip", classes="cat, dog", templates="name")(np.zeros((40, 50, 3), np.uint8))
assert result.labels.shape == (40, 50)
print(*[name for name in ("mmseg", "mmdet") if name in sys.modules])
"""


@pytest.mark.slow
def test_prediction_needs_neither_mmseg_nor_mmdet():
    done = subprocess.run([sys.executable, "-c", PREDICTION], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr
