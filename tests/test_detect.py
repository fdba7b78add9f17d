"""Words to boxes: the engine, the Python API, results and their files, and the two commands."""

import json
import warnings

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import ovseg as package
from ovseg.apis.detector import Detector
from ovseg.apis.load import load_detector
from ovseg.pictures.pixels import ImageError
from ovseg.predict.box_file import BoxFile
from ovseg.predict.box_settings import BoxSettings
from ovseg.predict.name_boxes import BoxNamer
from ovseg.results import rle
from ovseg.results.detections import Detections
from ovseg.text.stuff import BACKGROUND
from ovseg.text.vocabulary import Vocabulary

from .conftest import ROOT
from .test_cli import assert_one_paragraph, folder, ovseg, photo  # noqa: F401 (fixtures)

WORDS = ["cat", "dog|puppy", "owl"]
QUICK = dict(templates="name", cache=False, floor=0, area=1, background=("sky", "wall"))


@pytest.fixture
def detector(vit):
    return load_detector("naclip", tower=vit, classes=WORDS, **QUICK)


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ovseg.predict.build.say_once", lambda notice: None)
        return load_detector(cache=False, templates="photo")


def same(one, other):
    assert len(one) == len(other) and one.names == other.names
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


class TestEngine:
    def test_a_detection_carries_everything(self, detector, picture):
        found = detector(picture)
        assert (
            0 < len(found) <= 100 and set(found.names) <= {"cat", "dog", "owl"} and (np.diff(found.scores) <= 0).all()
        )
        assert (found.boxes[:, :2] >= 0).all() and (found.boxes[:, 2:] <= [130, 90]).all()
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all() and (found.image == picture).all()
        assert found.weights == "toy vit 0 (toy-vit-0)" and found.method == "naclip"
        assert found.protocol["regions"] == "found" and found.protocol["nms"] == 0.6 and found.provenance.fingerprint
        for i in range(min(5, len(found))):
            ys, xs = np.nonzero(found.mask(i))
            around = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            assert np.abs(around - found.boxes[i]).max() <= 4  # a patch covers about four pixels of this picture

    def test_the_tower_runs_once_per_picture(self, detector, picture, monkeypatch):
        calls, encode = [], type(detector.engine).encode
        monkeypatch.setattr(type(detector.engine), "encode", lambda *given: calls.append(1) or encode(*given))
        first = detector.set_image(picture).predict()
        detector.set_classes("bird").predict()
        same(detector.set_classes(WORDS).predict(), first)
        assert len(calls) == 1

    def test_permuted_words_permute_the_names(self, detector, picture):
        same(detector(picture, WORDS), detector(picture, WORDS[::-1]))

    def test_classes_beyond_the_enlarged_ones_still_compete(self, detector, picture, monkeypatch):
        words = [f"word {i}" for i in range(12)]
        everything = detector.set_classes(words).set_image(picture).predict()
        monkeypatch.setattr("ovseg.predict.detect.CLASSES", 5)
        few = detector(picture, words)
        assert set(few.names) <= set(everything.names) and len(set(few.names)) <= 5
        assert few.scores[0] == pytest.approx(everything.scores[0], abs=0.05)

    @pytest.mark.parametrize("shape", [(1, 1), (3, 200), (64, 64)])
    def test_pictures_of_any_size(self, detector, shape):
        rng = np.random.default_rng(0)
        found = detector(rng.integers(0, 256, (*shape, 3)).astype(np.uint8))
        assert found.size == shape and np.isfinite(found.scores).all() and found.plot().size[0] >= shape[1]

    @pytest.mark.parametrize("shape", [(7, 5), (1, 9), (3, 3)])
    def test_every_mask_of_a_tiny_picture_has_pixels(self, vit, shape):
        model = load_detector("naclip", tower=vit, classes=WORDS, **QUICK | dict(score_threshold=0, short_side=64))
        picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
        found = model(picture)
        assert len(found) and all(found.mask(i).any() for i in range(len(found)))

    def test_a_picture_without_anything(self, detector, picture):
        strict = load_detector("naclip", tower=detector.engine.pipeline.tower, classes=WORDS, **QUICK | dict(floor=1.0))
        found = strict(np.full((50, 70, 3), 128, np.uint8))
        assert len(found) == 0 and found.masks == [] and found.names == [] and "nothing" in repr(found)
        assert found.plot().size[0] >= 70 and found.above(0.5).boxes.shape == (0, 4)

    @pytest.mark.parametrize("method", ["maskclip", "gem", "proxyclip", "ensemble", "cliptrase", "resclip"])
    def test_any_extractor(self, vit, picture, method):
        assert len(load_detector(method, tower=vit, classes=WORDS, **QUICK)(picture))

    def test_a_resnet(self, resnet, picture):
        assert len(load_detector("maskclip", tower=resnet, classes=WORDS, **QUICK)(picture))

    @pytest.mark.parametrize("scorer", ["CenteredScore", "EnlargedScore", "ForegroundScore", "WholeImageScore"])
    def test_any_scorer(self, vit, picture, scorer):
        found = load_detector("naclip", tower=vit, scorer=dict(type=scorer), classes=WORDS, **QUICK)(picture)
        assert np.isfinite(found.scores).all()

    def test_guided_cropping_names_the_best_anew(self, vit, picture):
        plain = load_detector("naclip", tower=vit, classes=WORDS, **QUICK)(picture)
        guided = load_detector("naclip", tower=vit, classes=WORDS, guided=5, **QUICK)(picture)
        assert len(guided) == len(plain) and (np.diff(guided.scores) <= 0).all()
        assert not np.allclose(guided.scores[:5], plain.scores[:5])

    def test_background(self, vit, picture):
        def made(words, **changes):
            return load_detector("naclip", tower=vit, classes=words, **QUICK | changes)

        own = Vocabulary.parse(["cat", "dog"]).with_background(["sky", "wall"])
        same(made(own)(picture), made(["cat", "dog"])(picture))
        assert "background" not in made(own)(picture).names
        assert made(["cat"], background=())._words.encoded.background is None
        words = made(["sky", "cat"], background=None)._words.encoded  # usual stuff without what is asked for
        assert words.background == 2 and len(words.text) == 2 + len(BACKGROUND) - 1
        with pytest.raises(ValueError, match="background threshold, 0.3.*score_threshold"):
            made(own.with_background(0.3))

    def test_the_embedded_model_finds_things(self, tiny):
        words = ["bus", "strawberry", "owl", "train", "tiger"]
        model = load_detector(tower=tiny.engine.pipeline.tower, cache=False, templates="photo", inside=0.9)
        found = model(ROOT / "demo/scene.png", words).above(0.5)
        assert len(tiny(ROOT / "demo/scene.png", words).above(0.5)) > len(found)
        assert sorted(found.names) == ["bus", "owl", "strawberry"]
        truth = dict(bus=(35, 38, 140, 123), strawberry=(48, 147, 140, 237), owl=(140, 135, 238, 238))
        for name, box in zip(found.names, found.boxes, strict=True):
            assert float(torchvision.ops.box_iou(torch.tensor([truth[name]]), torch.tensor(box[None]))) > 0.6


class TestGivenRegions:
    def test_boxes_are_chosen_from(self, detector, picture):
        boxes = [[10, 10, 60, 60], [70, 20, 128, 88], [-20, -20, 30, 30]]
        found = detector.set_image(picture).predict(boxes=boxes)
        clipped = np.array([[10, 10, 60, 60], [70, 20, 128, 88], [0, 0, 30, 30]], np.float32)
        assert found.masks is None and found.protocol["regions"] == "given"
        assert {tuple(box) for box in found.boxes.round(2).tolist()} <= {tuple(box) for box in clipped.tolist()}
        with pytest.raises(ValueError, match="boxes only"):
            found.mask(0)

    def test_boxes_that_are_none(self, detector, picture):
        odd = [[5, 5, 5, 40], [40, 40, 10, 60], [200, 200, 300, 300], [float("nan"), 0, 9, 9], [-50, 0, -1, 90]]
        detector.set_image(picture)
        assert len(detector.predict(boxes=odd)) == 0 and len(detector.predict(boxes=torch.zeros(0, 4))) == 0
        one, among = detector.predict(boxes=[[9, 9, 80, 80]]), detector.predict(boxes=[*odd, [9, 9, 80, 80]])
        same(one, among)

    def test_masks_are_kept(self, detector, picture):
        masks = np.zeros((3, 90, 130), bool)
        masks[0, 10:50, 20:70], masks[2, 60:90, 0:130:2] = True, True
        found = detector.set_image(picture).predict(masks=masks)
        assert len(found) and all(any((found.mask(i) == m).all() for m in masks[[0, 2]]) for i in range(len(found)))
        assert len(detector.predict(masks=masks[:0])) == 0

    def test_objectness_is_averaged_geometrically(self, detector, picture):
        detector.set_image(picture)
        box = [[5, 5, 90, 80]]
        plain, trusted = detector.predict(boxes=box), detector.predict(boxes=box, objectness=[0.25])
        np.testing.assert_allclose(trusted.scores, np.sqrt(plain.scores * 0.25), rtol=1e-5)

    def test_mistakes(self, detector, picture):
        with pytest.raises(ValueError, match="first give a picture"):
            Detector(detector.engine).set_classes("cat").predict()
        with pytest.raises(ValueError, match="first give words"):
            Detector(detector.engine).set_image(picture).predict()
        detector.set_image(picture)
        for wrong, says in (
            (dict(boxes=[[0, 0, 5, 5]], masks=np.zeros((1, 90, 130))), "boxes or masks"),
            (dict(boxes=[[0, 0, 5]]), r"expected \(R, 4\)"),
            (dict(masks=np.zeros((1, 9, 13), bool)), r"masks are \(R, 90, 130\)"),
            (dict(objectness=[1.0]), "objectness belongs"),
        ):
            with pytest.raises(ValueError, match=says):
                detector.predict(**wrong)
        with pytest.raises(ValueError, match="empty|at least one"):
            detector.set_classes([])
        with pytest.raises(ImageError):
            detector.set_image("missing.png")


class TestLoading:
    def test_settings(self, vit):
        detector = load_detector("clip_surgery", tower=vit, shares=[0.4], nms=0.4, window=48, stride=32)
        assert detector.engine.settings.shares == (0.4,) and detector.engine.pipeline.protocol.window == 48
        for wrong, says in (
            (dict(shares=[2]), "shares=.*out of range|out of range: shares"),
            (dict(nms=0), "nms=0"),
            (dict(score_threshold=True), "score_threshold=True"),
            (dict(names=0), "names=0"),
            (dict(windw=3), "Did you mean 'window'"),
            (dict(refine=["pamr"]), "leave out refine"),
        ):
            with pytest.raises(ValueError, match=says):
                load_detector("naclip", tower=vit, **wrong)
        with pytest.raises(ValueError, match="unknown method 'naklip'"):
            load_detector("naklip", tower=vit)

    def test_settings_change_the_fingerprint(self, vit):
        def fingerprint(**settings):
            return load_detector("naclip", tower=vit, **settings).engine.provenance(None).fingerprint

        assert fingerprint() == fingerprint(nms=0.6) != fingerprint(nms=0.5) and fingerprint() != fingerprint(
            short_side=32
        )
        assert BoxSettings(background=["sky"]) == BoxSettings(background=("sky",))

    def test_the_package_offers_it(self):
        assert package.load_detector is load_detector and package.Detections is Detections

    def test_streams_go_past_broken_pictures(self, detector, picture, tmp_path):
        Image.fromarray(picture).save(tmp_path / "a.png")
        (tmp_path / "b.png").write_bytes(b"no picture")
        found = dict((item.name, result) for item, result in detector.stream(tmp_path))
        assert isinstance(found["b.png"], ImageError) and len(found["a.png"])
        same(detector(tmp_path / "a.png"), found["a.png"])
        assert isinstance(detector([picture, picture]), list)


class TestDetections:
    @pytest.fixture
    def found(self, picture):
        masks = np.zeros((3, 90, 130), bool)
        masks[0, 5:20, 5:30] = masks[1, 30:80, 60:120] = masks[2, 0:90, 0:130] = True
        boxes = [[5, 5, 30, 20], [60, 30, 120, 80], [0, 0, 130, 90]]
        return Detections(boxes, [0.3, 0.9, 0.1], [0, 1, 0], Vocabulary.parse("cat, dog"), (90, 130), masks, picture)

    def test_asking(self, found):
        assert found.names == ["dog", "cat", "cat"] and found.scores.tolist() == pytest.approx([0.9, 0.3, 0.1])
        assert (
            found.mask(0).sum() == 3000 and len(found.above(0.3)) == 2 and found["cat"].scores[0] == pytest.approx(0.3)
        )
        assert found[0].names == ["dog"] and found[1:].names == ["cat", "cat"] and found.without_masks().masks is None
        assert "dog 0.90" in repr(found) and found.plot().size == (520, 360)

    def test_files_are_cocos(self, found, tmp_path):
        from pycocotools.coco import COCO

        paths = found.save(tmp_path / "out", "two")
        assert [path.name for path in paths.values()] == ["two_detections.png", "two_detections.json"]
        coco = COCO(paths["json"])
        assert coco.loadCats([1])[0]["name"] == "dog" and coco.loadImgs([1])[0]["width"] == 130
        first = coco.loadAnns(coco.getAnnIds())[0]
        assert first["bbox"] == [60, 30, 60, 50] and first["area"] == 3000 and first["score"] == pytest.approx(0.9)
        assert (coco.annToMask(first).astype(bool) == found.mask(0)).all()

    def test_reading_back(self, found, picture, tmp_path):
        Image.fromarray(picture).save(tmp_path / "p.png")
        found.path = tmp_path / "p.png"
        again = Detections.load(found.save(tmp_path)["json"])
        same(again, found)
        assert (again.mask(1) == found.mask(1)).all() and (again.image == picture).all() and again.size == (90, 130)
        (tmp_path / "p.png").unlink()
        without = Detections.load(tmp_path / "p_detections.json")
        assert without.image is None and list(without.save(tmp_path / "again")) == ["json"]
        with pytest.raises(ValueError, match="no picture to draw on"):
            without.plot()
        boxes = Detections.load(found.without_masks().save(tmp_path / "boxes")["json"])
        assert boxes.masks is None

    def test_nothing_is_saved_and_read_as_well(self, found, tmp_path):
        none = found.above(1)
        again = Detections.load(none.save(tmp_path, "none")["json"])
        assert len(again) == 0 and again.boxes.shape == (0, 4)

    def test_a_failed_write_leaves_nothing(self, found, tmp_path, monkeypatch):
        monkeypatch.setattr(Image.Image, "save", lambda *a, **k: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError):
            found.save(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_mistakes(self, picture, found, tmp_path):
        words = Vocabulary.parse("cat, dog")
        for wrong in (
            dict(scores=[0.5, 0.5]),
            dict(boxes=[[0, 0, 1]]),
            dict(boxes=[[0, 0, 1, float("nan")]]),
            dict(scores=[1.5]),
            dict(labels=[2]),
            dict(masks=np.zeros((1, 5, 5), bool)),
            dict(image=picture[:5]),
        ):
            given = dict(boxes=[[0, 0, 1, 1]], scores=[0.5], labels=[0]) | wrong
            with pytest.raises(ValueError):
                Detections(vocabulary=words, size=(90, 130), **given)
        for stem in ("a/b", ""):
            with pytest.raises(ValueError, match="folder"):
                found.save(tmp_path, stem)
        with pytest.raises(FileNotFoundError, match="_detections.json"):
            Detections.load(tmp_path / "no.json")
        (tmp_path / "other.json").write_text('{"format": "ovseg-result"}')
        with pytest.raises(ValueError, match="not a file of detections"):
            Detections.load(tmp_path / "other.json")


class TestBoxFiles:
    def test_layouts(self, tmp_path):
        def read(name, text, picture="photo.png"):
            (tmp_path / name).write_text(text)
            return BoxFile(tmp_path / name, ["photo.png", picture]).of(picture, (90, 130)).tolist()

        assert read("list.json", "[[1, 2, 3, 4]]") == [[1, 2, 3, 4]] and read("none.json", "[]") == []
        images = [dict(id=3, file_name="/old/photo.png"), dict(id=4, file_name="b.png")]
        annotations = [dict(image_id=3, bbox=[1, 2, 3, 4]), dict(image_id=4, bbox=[0, 0, 9, 9])]
        annotations.append(dict(image_id=3, bbox=[0, 0, 50, 50], iscrowd=1))
        coco = json.dumps(dict(images=images, annotations=annotations))
        assert read("coco.json", coco) == [[1, 2, 4, 6]] and read("coco.json", coco, "unknown.png") == []
        assert read("all.csv", "x1,y1,x2,y2\n1,2,3,4.5\n") == [[1, 2, 3, 4.5]]
        assert read("some.csv", "image,x1,y1,x2,y2\nb.png,0,0,1,1\nphoto.png,1,2,3,4\n") == [[1, 2, 3, 4]]

    @pytest.mark.parametrize(
        "name, text",
        [("a.json", "[[1, 2, 3]]"), ("b.json", "{}"), ("c.csv", "x1,y1\n1,2\n"), ("d.csv", ""), ("e.json", "[[")]
        + [("f.json", '[["a", 2, 3, 4]]'), ("g.json", "[[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2]]")],
    )
    def test_mistakes(self, tmp_path, name, text):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match="holds no boxes that can be read"):
            BoxFile(tmp_path / name, ["photo.png"])
        with pytest.raises(FileNotFoundError, match="no file of boxes"):
            BoxFile(tmp_path / "missing.json", ["photo.png"])


class TestNaming:
    BOXES = [[10, 10, 60, 60], [5, 5, 5, 40], [300, 0, 400, 50], [70, 20, 200, 88]]

    def test_the_mean_of_the_read_outs(self, detector, picture):
        encoded, words = detector.engine.encode(picture), detector._words.encoded
        boxes = torch.tensor(self.BOXES).float()
        each = [
            BoxNamer(detector.engine, name)(encoded, words, boxes) for name in ("roi", "mask", "crop", "masked_crop")
        ]
        mean = BoxNamer(detector.engine, ("roi", "mask", "crop", "masked_crop"))(encoded, words, boxes)
        torch.testing.assert_close(mean, torch.stack(each).mean(0))
        assert (
            mean.shape == (4, 3) and (mean[[1, 2]] == 0).all() and (mean[[0, 3]] > 0).all() and mean.sum(1).max() <= 1
        )

    def test_masks_say_what_belongs_to_a_box(self, detector, picture):
        encoded, words = detector.engine.encode(picture), detector._words.encoded
        boxes = torch.tensor(self.BOXES).float()
        masks = torch.zeros(4, 90, 130, dtype=torch.bool)
        masks[0, 20:40, 20:30] = True  # the last one is empty: its box speaks
        namer = BoxNamer(detector.engine, ("mask", "masked_crop"))
        without, with_masks = namer(encoded, words, boxes), namer(encoded, words, boxes, masks)
        assert (with_masks[0] - without[0]).abs().max() > 1e-4
        torch.testing.assert_close(with_masks[3], without[3], atol=0.05, rtol=0)

    def test_names_of_boxes(self, detector, picture):
        found = detector.name_boxes(picture, self.BOXES, BoxNamer(detector.engine), most=2)
        assert [each["box"] for each in found] == self.BOXES
        assert len(found[0]["names"]) == 2 and set(found[1]["names"].values()) == {0}
        assert detector.name_boxes(picture, [], BoxNamer(detector.engine)) == []

    def test_mistakes(self, detector, picture):
        with pytest.raises(ValueError, match="got rois.*'roi'"):
            BoxNamer(detector.engine, ["rois"])
        with pytest.raises(ValueError, match="one or more"):
            BoxNamer(detector.engine, [])
        with pytest.raises(ValueError, match="margins"):
            BoxNamer(detector.engine, ["crop"], [0.2])
        with pytest.raises(ValueError, match="first give words"):
            Detector(detector.engine).name_boxes(picture, self.BOXES, BoxNamer(detector.engine))
        encoded = detector.engine.encode(picture)
        with pytest.raises(ValueError, match="as many masks"):
            BoxNamer(detector.engine)(encoded, detector._words.encoded, torch.zeros(2, 4), torch.zeros(1, 90, 130))


QUICK_CLI = ("--templates", "name", "--no-progress", "--short-side", 64)


class TestCommands:
    def test_detect_a_picture(self, ovseg, photo, tmp_path):  # noqa: F811
        code, out, err = ovseg("detect", photo, "-c", "owl, bus", "--score", 0, *QUICK_CLI)
        assert code == 0 and "1 picture(s) searched" in out and "Traceback" not in err and "photo.png" in err
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["photo_detections.json", "photo_detections.png"]
        again = Detections.load(tmp_path / "out/photo_detections.json")
        assert again.method == "clip_surgery" and again.protocol["templates"] == "name"

    def test_a_folder_with_broken_pictures(self, ovseg, folder, tmp_path):  # noqa: F811
        words = ("detect", folder, "-c", "owl", "--json", "-o", "there", "-m", "naclip", *QUICK_CLI)
        code, out, err = ovseg(*words)
        lines = [json.loads(line) for line in out.splitlines()]
        assert code == 1 and len(lines) == 2 and "2 of 4 picture(s) could not be read" in err
        assert set(lines[0]) == {"image", "detections", "files"} and (tmp_path / "there/a_detections.png").is_file()
        assert ovseg(*words, "--resume")[1] == "" and ovseg(*words, "--resume", "--score", 0.5)[1] != ""

    def test_box_file_and_no_masks(self, ovseg, photo, tmp_path):  # noqa: F811
        (tmp_path / "boxes.csv").write_text("x1,y1,x2,y2\n10,10,90,80\n5,5,5,5\n400,400,500,500\n")
        code, out, _ = ovseg(
            "detect", photo, "-c", "owl, bus", "--boxes", "boxes.csv", "--score", 0, "--json", *QUICK_CLI
        )
        found = json.loads(out)["detections"]
        assert code == 0 and all(each["box"] == [10, 10, 90, 80] for each in found)
        assert ovseg("detect", photo, "-c", "owl", "--no-masks", "--score", 0, *QUICK_CLI)[0] == 0
        assert Detections.load(tmp_path / "out/photo_detections.json").masks is None

    def test_classify_boxes(self, ovseg, folder, tmp_path):  # noqa: F811
        (tmp_path / "boxes.json").write_text("[[10, 10, 40, 30], [5, 5, 5, 5]]")
        words = ("classify-boxes", folder, "--boxes", "boxes.json", "-c", "owl, bus", "--templates", "name")
        code, out, err = ovseg(*words, "--readout", "roi", "--readout", "crop", "--margin", 1)
        lines = [json.loads(line) for line in out.splitlines()]
        assert code == 1 and len(lines) == 2 and "2 of 4 picture(s) could not be read" in err
        first, second = lines[0]["boxes"]
        assert set(first["names"]) == {"owl", "bus"} and set(second["names"].values()) == {0}

    def test_mistakes(self, ovseg, photo, tmp_path):  # noqa: F811
        (tmp_path / "boxes.json").write_text("{}")
        assert_one_paragraph(ovseg("detect", photo), "say which words are meant")
        assert_one_paragraph(ovseg("detect", photo, "-c", " , "), "list of words is empty")
        assert_one_paragraph(ovseg("detect", "missing.png", "-c", "owl"), "no file missing.png")
        assert_one_paragraph(ovseg("detect", photo, "-c", "owl", "--score", 2), "score_threshold=2.0")
        assert_one_paragraph(ovseg("detect", photo, "-c", "owl", "--boxes", "no.json"), "no file of boxes")
        assert_one_paragraph(ovseg("detect", photo, "-c", "owl", "--boxes", "boxes.json"), "holds no boxes")
        assert_one_paragraph(ovseg("detect", photo, "-c", "owl", "--boxes", "x.json", "--resume"), "--resume")
        assert_one_paragraph(ovseg("classify-boxes", photo, "-c", "owl", "--boxes", "boxes.json"), "holds no boxes")
        (tmp_path / "boxes.json").write_text("[]")
        wrong = ("classify-boxes", photo, "-c", "owl", "--boxes", "boxes.json", "--readout", "rio")
        assert_one_paragraph(ovseg(*wrong), "read-outs", "'roi'")

    def test_words_that_the_model_never_learned_are_told(self, ovseg, photo):  # noqa: F811
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            code, _, err = ovseg("detect", photo, "-c", "spoonbill", *QUICK_CLI)
        assert code == 0 and "never learned: spoonbill" in err and "sky" not in err


def test_run_lengths_of_outlines():
    from ovseg.predict.detect import _outline

    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1:3, 2:5] = True
    fine = rle.decode(_outline(mask, torch.tensor([20.0, 10.0, 50.0, 30.0]), (40, 60)))
    assert fine[12:28, 22:48].all() and not fine[:9].any() and not fine[:, 52:].any()
