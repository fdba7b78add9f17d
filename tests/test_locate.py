"""Phrases to boxes: the Python API, the command, and the two scores."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg.apis.locate import Locator, save_locations
from ovseg.evaluation.localization import box_hit, box_iou, peak, point_hit
from ovseg.pictures.pixels import ImageError
from ovseg.registry import METRICS
from ovseg.results.draw_boxes import draw_boxes

from .test_cli import assert_one_paragraph, folder, ovseg, photo  # noqa: F401 (fixtures)

COUNTS = (20, 60)


@pytest.fixture
def locator(vit):
    return Locator(tower=vit, counts=COUNTS, cache=False)


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ovseg.apis.locate.say_once", lambda notice: None)
        return Locator(size=64, cache=False)  # its own size is 128; this one is quicker


class TestLocator:
    def test_a_location_carries_everything(self, locator, picture):
        found = locator.set_image(picture).locate("a red umbrella")
        x1, y1, x2, y2 = found.box
        assert 0 <= x1 < x2 <= 130 and 0 <= y1 < y2 <= 90
        assert found.heatmap.shape == (90, 130) and found.heat.shape == (64, 64)
        assert found.heat.min() == 0 and found.heat.max() == 1 and -1 <= found.score <= 1
        assert found.phrase == "a red umbrella" and (found.image == picture).all() and found.path is None
        assert str(found.provenance.weights) == "toy vit 0 (toy-vit-0)" and "a red umbrella" in repr(found)

    def test_the_tower_runs_once_per_picture(self, locator, picture, monkeypatch):
        calls = []
        encode = type(locator.regions).encode
        monkeypatch.setattr(type(locator.regions), "encode", lambda *arguments: calls.append(1) or encode(*arguments))
        locator.set_image(picture)
        one, other = locator.locate("cat"), locator.locate(["dog", "cat"])
        assert len(calls) == 1 and [each.phrase for each in other] == ["dog", "cat"]
        assert one.box == other[1].box and one.score == pytest.approx(other[1].score)

    def test_merged_superpixels_have_the_embedding_of_each(self, locator, picture):
        from ovseg.regions import as_masks, superpixels

        pixels = np.asarray(Image.fromarray(picture).resize((64, 64)))
        maps = superpixels(pixels, COUNTS)
        images = locator.tower.normalize(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255)
        masks = torch.from_numpy(as_masks(maps))[None]
        expected = torch.nn.functional.normalize(locator.regions(locator.tower, images, masks)[0], dim=-1)
        torch.testing.assert_close(locator._embed(pixels, maps), expected, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("shape", [(1, 1), (3, 200), (64, 64)])
    def test_pictures_of_any_size(self, locator, shape):
        rng = np.random.default_rng(0)
        found = locator(rng.integers(0, 256, (*shape, 3)).astype(np.uint8), "cat")
        assert found.heatmap.shape == shape and np.isfinite(found.heatmap).all()
        assert 0 <= found.box[0] < found.box[2] <= shape[1] and found.plot().size[0] >= shape[1]

    def test_a_picture_of_one_color(self, locator):
        found = locator(np.full((50, 70, 3), 128, np.uint8), "cat")
        assert np.isfinite(found.heat).all() and np.isfinite([*found.box, found.score]).all()

    def test_mistakes(self, locator, picture, resnet, vit):
        with pytest.raises(ValueError, match="set_image"):
            locator.locate("cat")
        with pytest.raises(ImageError):
            locator.set_image("missing.png")
        locator.set_image(picture)
        for blank in ("  ", [], ["cat", ""], [3]):
            with pytest.raises(ValueError, match="expected phrases"):
                locator.locate(blank)
        with pytest.raises(ValueError, match="tokens"):
            locator.locate("very " * 200 + "long")
        with pytest.raises(ValueError, match="a class token"):
            Locator(tower=resnet)
        for wrong in (dict(temperature=0), dict(alpha=1), dict(size=8), dict(counts=())):
            with pytest.raises(ValueError, match="a locator needs"):
                Locator(tower=vit, **wrong)

    def test_an_article_does_not_make_a_word_unknown(self, tiny):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tiny.encoder.check_known(["a bus", "The owl", "owl"])
        with pytest.warns(UserWarning, match="spoonbill"):
            tiny.encoder.check_known(["a spoonbill"])

    @pytest.mark.slow
    def test_the_embedded_model_points_at_things(self, tiny):
        """Well above chance: the objects cover a tenth of their scenes."""
        from ovseg.datasets.scenes import SceneComposer, object_names

        compose, names, hits = SceneComposer(size=128), object_names(), []
        for seed in range(5_000_000, 5_000_004):
            scene = compose(seed)
            large = [i for i, (_, mask, _) in enumerate(scene.objects) if mask.mean() > 0.04]
            found = tiny(scene.image, [names[scene.objects[i][0]] for i in large]) if large else []
            hits += [point_hit(peak(f.heatmap), scene.boxes()[i]) for i, f in zip(large, found, strict=True)]
        assert len(hits) >= 6 and np.mean(hits) >= 0.4


class TestFiles:
    def test_saved_files(self, locator, picture, tmp_path):
        found = locator(picture, ["cat", "dog"])
        paths = save_locations(found, tmp_path / "out", "both")
        record = json.loads(paths["json"].read_text(encoding="utf-8"))
        assert [each["phrase"] for each in record["locations"]] == ["cat", "dog"]
        assert record["image"] == {"path": None, "width": 130, "height": 90} and record["protocol"]["alpha"] == 0.8
        assert record["method"] == "adapting_clip" and record["fingerprint"] and record["picture"] is None
        assert Image.open(paths["boxes"]).format == "PNG"
        assert {path.name for path in found[0].save(tmp_path / "out").values()} == {
            "image_boxes.png",
            "image_boxes.json",
        }
        assert len(list((tmp_path / "out").iterdir())) == 4

    def test_a_failed_write_leaves_nothing(self, locator, picture, tmp_path, monkeypatch):
        found = locator(picture, "cat")
        monkeypatch.setattr(Image.Image, "save", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError):
            found.save(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_mistakes(self, locator, picture, tmp_path):
        found = locator(picture, "cat")
        (tmp_path / "file").write_text("")
        for arguments in [(tmp_path / "file",), (tmp_path, "a/b"), (tmp_path, "")]:
            with pytest.raises(ValueError, match="folder"):
                found.save(*arguments)
        with pytest.raises(ValueError, match="nothing to save"):
            save_locations([], tmp_path)
        with pytest.raises(ValueError, match="one label per box"):
            draw_boxes(picture, [(0, 0, 5, 5)], [])

    def test_drawing_stays_inside(self, picture):
        boxes = [(0, 0, 130, 90), (129, 89, 130, 90), (0, 0, 1, 1), (20, 5, 60, 30)]
        drawn = draw_boxes(picture, boxes, ["a" * 300, "猫", "", "owl"], np.zeros((4, 4)))
        assert drawn.size == (520, 360)


QUICK = ("--size", 64)


class TestCommand:
    def test_one_picture(self, ovseg, photo, tmp_path):  # noqa: F811
        code, out, err = ovseg("locate", photo, "-p", "an owl", "-p", "bus", *QUICK)
        assert code == 0 and "1 picture(s) searched" in out and "an owl: box" in err and "Traceback" not in err
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["photo_boxes.json", "photo_boxes.png"]

    def test_a_folder_with_broken_pictures(self, ovseg, folder, tmp_path):  # noqa: F811
        code, out, err = ovseg("locate", folder, "-p", "owl", "--json", "-o", "there", *QUICK)
        lines = [json.loads(line) for line in out.splitlines()]
        assert code == 1 and len(lines) == 2 and "2 of 4 picture(s) could not be read" in err
        assert lines[0]["locations"][0]["phrase"] == "owl" and len(lines[0]["locations"][0]["box"]) == 4
        assert (tmp_path / "there" / "a_boxes.png").is_file()

    def test_mistakes(self, ovseg, photo):  # noqa: F811
        assert_one_paragraph(ovseg("locate", photo, "-p", " "), "blank")
        assert_one_paragraph(ovseg("locate", "missing.png", "-p", "owl"), "no file missing.png")
        assert_one_paragraph(ovseg("locate", photo, "-p", "owl", "--alpha", 1), "alpha < 1")
        assert ovseg("locate", photo)[0] == 2


class TestScores:
    def test_iou(self):
        boxes = np.array([[0, 0, 4, 4], [2, 2, 6, 6], [4, 4, 8, 8], [1, 1, 1, 1]])
        np.testing.assert_allclose(box_iou(boxes[0], boxes), [1, 4 / 28, 0, 0])

    def test_hits(self):
        truth = np.array([[0, 0, 4, 4], [6, 0, 10, 4]])
        assert box_hit((0, 0, 4, 4), truth) and not box_hit((0, 0, 4, 2), truth)  # exactly one half is not above it
        assert not box_hit((0, 0, 10, 4), truth) and box_hit((0, 0, 10, 4), truth, merge=True)
        heat = np.zeros((4, 10))
        heat[1, 7] = heat[3, 3] = 1
        assert peak(heat) == (7.5, 1.5) and point_hit(peak(heat), truth) and not point_hit((5, 1), truth)

    def test_the_metric(self):
        metric = METRICS.build(dict(type="PhraseMetric"))
        truth = np.array([[0, 0, 4, 4]])
        right = dict(box=(0, 0, 4, 4), truth=truth, point=(1, 1))
        wrong = dict(box=(4, 4, 8, 8), truth=truth, heat=np.eye(9)[::-1])
        metric.process({}, [dict(phrases=[right, wrong]), dict(phrases=[right])])
        expected = {"phrase/accuracy": 200 / 3, "phrase/phrases": 3, "phrase/pointing": 200 / 3}
        assert metric.evaluate(2) == pytest.approx(expected)
        metric.process({}, [dict(phrases=[dict(box=(0, 0, 4, 4), truth=truth)])])
        assert metric.evaluate(1) == {"phrase/accuracy": 100, "phrase/phrases": 1}

    def test_mistakes(self):
        metric = METRICS.build(dict(type="PhraseMetric"))
        with pytest.raises(ValueError, match="sample\\['phrases'\\]"):
            metric.process({}, [dict(boxes=[])])
        metric.process({}, [dict(phrases=[])])
        with pytest.raises(ValueError, match="no phrase was scored"):
            metric.evaluate(1)
        with pytest.raises(ValueError, match="threshold"):
            METRICS.build(dict(type="PhraseMetric", threshold=1))
        with pytest.raises(ValueError, match="x2 >= x1"):
            box_iou((4, 0, 2, 2), (0, 0, 1, 1))
        with pytest.raises(ValueError, match="one true box"):
            point_hit((0, 0), np.zeros((0, 4)))
        with pytest.raises(ValueError, match="heat map"):
            peak(np.full((2, 2), np.nan))
