"""Detection slice by slice: any detector, and what it would say of the slices by themselves."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

import ovseg as package
from ovseg.apis.detector import Detector
from ovseg.apis.load import load_detector
from ovseg.predict.box_settings import BoxSettings
from ovseg.predict.detect import Found, leave_best
from ovseg.predict.name_boxes import BoxNamer
from ovseg.predict.slices import SlicedDetector, SliceSettings
from ovseg.results import rle
from ovseg.results.detections import Detections
from ovseg.results.provenance import Provenance

from .conftest import ROOT
from .test_cli import assert_one_paragraph, ovseg, photo  # noqa: F401 (fixtures)
from .test_detections import same

WORDS = ["cat", "dog", "owl"]
QUICK = dict(templates="name", cache=False, floor=0, area=1, background=("sky", "wall"))
CHECKPOINT = ROOT / "configs/fvit/fvit_windows_tiny_scenes.safetensors"


@dataclass
class EncodedBlobs:
    image: np.ndarray
    source: Any = None


class Blobs:
    """A detector of bright blobs: the red channel is the score in percent, the green one the class."""

    boxes, method = True, "blobs"

    def __init__(self, masks=True, **settings):
        self.settings, self.masks = BoxSettings(**settings), masks

    def read(self, vocabulary, progress=None):
        return vocabulary

    def encode(self, image):
        return EncodedBlobs(image)

    def decode(self, picture, words):
        image = picture.image
        blobs, _ = ndimage.label(image[..., 0])
        where = ndimage.find_objects(blobs)
        boxes = torch.tensor([[x.start, y.start, x.stop, y.stop] for y, x in where]).float().reshape(-1, 4)
        peaks = [image[blobs == i + 1].max(0) for i in range(len(where))]
        scores = torch.tensor([peak[0] / 100 for peak in peaks]).float()
        labels = torch.tensor([int(peak[1]) for peak in peaks]).long()
        best = leave_best(self.settings, boxes, scores, labels)
        masks = [rle.encode(blobs == i + 1) for i in best.tolist()]
        return Found(boxes[best], scores[best], labels[best], masks if self.masks else None)

    def provenance(self, vocabulary):
        return Provenance("blobs", protocol={"nms": self.settings.nms}, fingerprint="abc")


def scene(size, blobs):
    """Blobs (y, x, height, width, score in percent, class) on black; their corners are cut off."""
    image = np.zeros((*size, 3), np.uint8)
    for y, x, height, width, *color in blobs:
        image[y : y + height, x : x + width, :2] = color
        image[y, x] = 0
    return image


def detect(engine, image, **slices):
    engine = SlicedDetector(engine, SliceSettings(**slices)) if slices else engine
    return Detector(engine).set_classes(WORDS)(image)


def random_scene(seed, side, rows, columns):
    """Blobs each in the middle of a cell of a grid, so that none crosses a multiple of the side."""
    rng, blobs = np.random.default_rng(seed), []
    for y in range(rows):
        for x in range(columns):
            height, width = rng.integers(3, side - 6, 2)
            blobs.append((y * side + 3, x * side + 3, height, width, rng.integers(30, 100), rng.integers(0, 3)))
    return scene((rows * side, columns * side), blobs)


class TestSlices:
    @pytest.mark.parametrize("masks", [True, False])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 4)])
    def test_they_are_the_whole_where_nothing_crosses_an_edge(self, shape, masks):
        for seed in range(5):
            image = random_scene(seed, 24, *shape)
            same(detect(Blobs(masks), image, slice=24, overlap=0), detect(Blobs(masks), image))

    def test_what_lies_whole_in_one_of_two_slices_is_detected_once(self):
        image = scene((40, 100), [(10, 33, 8, 9, 90, 0), (10, 60, 20, 6, 80, 1)])  # slices at 0, 30 and 60
        same(detect(Blobs(), image, slice=40, overlap=0.25), detect(Blobs(), image))

    @pytest.mark.parametrize(
        "second, settings, left",
        [
            ([5, 10, 15, 20], {}, [1]),  # sees all of what the first slice cuts
            ([0, 10, 15, 20], {}, [0, 1]),  # is cut too, and overlaps too little
            ([0, 10, 15, 20], dict(inside=0.4), [0]),
            ([5, 10, 15, 20], dict(nms=1), [0, 1]),
            ([0, 10, 12, 20], {}, [0]),  # IoU 0.625
        ],
    )
    @pytest.mark.parametrize("label", [0, 1])
    def test_boxes_of_two_slices(self, second, settings, left, label):
        """A better box at x = 32 … 40, cut by the edge of its slice, and one of the next slice, which begins at 30."""
        engine = Blobs(**settings)
        parts = [([[32.0, 10, 40, 20]], [0.9], [0]), ([list(map(float, second))], [0.5], [label])]
        engine.encode = lambda image: int(image[0, 0, 0])
        engine.decode = lambda part, words: Found(*map(torch.tensor, parts[part]), None)
        image = np.zeros((40, 70, 3), np.uint8)
        image[:, 30:] = 1
        boxes = [[32, 10, 40, 20], [second[0] + 30, 10, second[2] + 30, 20]]
        expected = [boxes[i] for i in (left if label == 0 else [0, 1])]
        assert detect(engine, image, slice=40, overlap=0.25).boxes.tolist() == expected

    def test_one_limit_for_the_whole_picture(self):
        image = random_scene(0, 24, 3, 4)
        few = detect(Blobs(max_detections=5), image, slice=24, overlap=0)
        same(few, detect(Blobs(), image)[:5])

    def test_slices_cover_the_picture(self):
        for size in [(5, 9), (24, 24), (50, 131), (200, 25)]:
            boxes = SliceSettings(24, 0.3).boxes(size)
            seen = np.zeros(size, int)
            for top, left, bottom, right in boxes:
                seen[top:bottom, left:right] += 1
                assert bottom - top == min(24, size[0]) and right - left == min(24, size[1])
            assert seen.min() == 1 or size != (24, 24) and seen.min() >= 1

    def test_they_are_recorded(self):
        image = random_scene(1, 24, 2, 2)
        plain, sliced = detect(Blobs(), image), detect(Blobs(), image, slice=24, overlap=0.5)
        assert {"slice": 24, "overlap": 0.5}.items() <= sliced.protocol.items() and sliced.method == "blobs"
        prints = {detect(Blobs(), image, slice=24, overlap=o).provenance.fingerprint for o in (0, 0.5)}
        assert len(prints | {plain.provenance.fingerprint}) == 3

    @pytest.mark.parametrize(
        "settings, message",
        [
            (dict(slice=0), "slice=0"),
            (dict(slice=64.5), "slice=64.5"),
            (dict(slice=True), "slice=True"),
            (dict(slice=64, overlap=1), "overlap=1"),
            (dict(slice=64, overlap=-0.1), "overlap=-0.1"),
            (dict(slice=64, overlap="a"), "overlap='a'"),
            (dict(overlap=0.2), "overlap=0.2 is that of slices: give slice too"),
        ],
    )
    def test_mistakes(self, settings, message):
        with pytest.raises(ValueError, match=message):
            SliceSettings.split(settings)


class TestWithoutTraining:
    def test_separate_pictures_in_one(self, vit):
        """A picture whose slices are pictures of their own gives the detections of these, wherever they are."""
        rng = np.random.default_rng(0)
        tiles = rng.integers(0, 256, (4, 48, 48, 3)).astype(np.uint8)
        image = np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)])
        options = QUICK | dict(max_detections=1000)
        plain = load_detector("naclip", tower=vit, classes=WORDS, **options)
        sliced = load_detector("naclip", tower=vit, classes=WORDS, slice=48, overlap=0, **options)
        expected = Detections.merge([plain(tile) for tile in tiles], [(0, 0), (48, 0), (0, 48), (48, 48)])
        same(sliced(image), expected)
        assert len(expected) > 20

    def test_words_change_without_another_pass_of_the_tower(self, vit, picture, monkeypatch):
        model = load_detector("naclip", tower=vit, slice=64, classes=WORDS, **QUICK)
        passes, encode = [], type(model.engine.engine).encode
        monkeypatch.setattr(type(model.engine.engine), "encode", lambda *given: passes.append(1) or encode(*given))
        first = model.set_image(picture).predict()
        model.set_classes("bird").predict()
        same(model.set_classes(WORDS).predict(), first)
        assert len(passes) == 6  # 90 × 130 pixels

    def test_small_pictures_are_one_slice(self, vit, picture):
        plain = load_detector("naclip", tower=vit, classes=WORDS, **QUICK)(picture)
        same(load_detector("naclip", tower=vit, classes=WORDS, slice=640, **QUICK)(picture), plain)

    def test_what_has_no_use_for_slices(self, vit, picture):
        model = load_detector("naclip", tower=vit, classes=WORDS, slice=64, **QUICK)
        with pytest.raises(ValueError, match="boxes: regions that are given.*Leave out slice"):
            model.set_image(picture).predict(boxes=[[0, 0, 20, 20]])
        with pytest.raises(ValueError, match="sees whole pictures: no slice"):
            BoxNamer(model.engine)
        with pytest.raises(ValueError, match="slice, overlap: of detectors"):
            package.load("naclip", tower=vit, slice=64)
        with pytest.raises(ValueError, match="give slice too"):
            load_detector("naclip", tower=vit, overlap=0.1)


def test_trained_detectors():
    image = np.asarray(Image.open(ROOT / "demo/scene.png").convert("RGB"))
    image = np.concatenate([image, image[:, ::-1]], 1)
    settings = dict(score_threshold=0.2, inside=0.9)
    plain = package.load("fvit", str(CHECKPOINT), ["bus", "owl"], **settings)
    sliced = package.load("fvit", str(CHECKPOINT), ["bus", "owl"], slice=256, overlap=0, **settings)
    halves = [plain(image[:, :256]), plain(np.ascontiguousarray(image[:, 256:]))]
    same(sliced(image), Detections.merge(halves, [(0, 0), (256, 0)]))
    assert sliced.provenance.protocol["slice"] == 256 and len(sliced(image)["owl"]) == 2


def test_the_command(ovseg, photo, tmp_path):  # noqa: F811
    options = ("-c", "cat, dog", "--templates", "name", "--no-progress", "--slice", 64)
    code, _, _ = ovseg("detect", photo, *options, "--overlap", 0.1)
    saved = json.loads((tmp_path / "out/photo_detections.json").read_text())
    assert code == 0 and saved["protocol"]["slice"] == 64 and saved["protocol"]["overlap"] == 0.1
    code, _, err = ovseg("detect", photo, *options, "--overlap", 0.1, "--resume")
    assert code == 0 and "1 already there" in err
    code, _, err = ovseg("detect", photo, *options, "--resume")
    assert code == 0 and "already there" not in err
    assert_one_paragraph(ovseg("detect", photo, *options, "--overlap", 1.5), "overlap=1.5", "a share in [0, 1)")
    assert_one_paragraph(ovseg("detect", photo, "-c", "cat", "--overlap", 0.5), "give slice too")
