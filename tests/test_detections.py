"""Detections as values: choosing among them, areas, suppression, and several as one."""

import numpy as np
import pytest

from ovseg.results import rle
from ovseg.results.detections import Detections
from ovseg.results.provenance import Provenance
from ovseg.text.union import unite
from ovseg.text.vocabulary import Vocabulary

WORDS = Vocabulary.parse("cat|kitten, dog, owl")


def random_detections(seed, count=40, size=(60, 80), words=WORDS, masks=True, **about):
    """Boxes in whole pixels, whose masks are ellipses in them."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.integers(0, [[[size[1]], [size[0]]]], (count, 2, 2)), axis=2)
    x1, y1 = corners[:, 0, 0], corners[:, 1, 0]
    boxes = np.stack([x1, y1, corners[:, 0, 1] + 1, corners[:, 1, 1] + 1], 1)
    ys, xs = np.mgrid[: size[0], : size[1]] + 0.5
    center, radius = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    ellipses = [((xs - c[0]) / r[0]) ** 2 + ((ys - c[1]) / r[1]) ** 2 <= 1 for c, r in zip(center, radius, strict=True)]
    labels = rng.integers(0, len(words), count)
    return Detections(boxes, rng.random(count), labels, words, size, np.array(ellipses) if masks else None, **about)


def same(one, other):
    assert one.size == other.size and one.names == other.names
    np.testing.assert_array_equal(one.boxes, other.boxes)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert one.masks == other.masks


def iou(a, b):
    common = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    return common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common)


class TestChoosing:
    def test_names(self):
        some = random_detections(0)
        assert set(some["kitten"].names) == {"cat"} and len(some["cat"]) + len(some["dog", "owl"]) == len(some)
        same(some[["owl", "Dog"]], some[np.isin(some.labels, [1, 2])])

    def test_masks_indices_slices(self):
        some = random_detections(1)
        same(some[some.scores >= 0.5], some.above(0.5))
        same(some[:4], some[[0, 1, 2, 3]])
        same(some[3], some[3:4])
        same(some[[3, 0]], some[[0, 3]])  # the order is that of the scores
        assert len(some[[]]) == 0 and len(some[np.zeros(len(some), bool)]) == 0 and len(some[:0][[]]) == 0
        assert [one.names[0] for one in some] == some.names

    @pytest.mark.parametrize(
        "chosen, message",
        [
            ("oul", "no class is called 'oul'. Did you mean 'owl'"),
            (["owl", "cta"], "Did you mean 'cat'"),
            (["owl", 1], "by names or by indices"),
            ([True, False], r"a mask over 40 detections has the shape \(40,\), got \(2,\)"),
            (0.5, "a boolean mask or indices; got 0.5"),
            ([[0, 1]], "a boolean mask or indices"),
            (None, "a boolean mask or indices; got None"),
        ],
    )
    def test_mistakes(self, chosen, message):
        with pytest.raises(ValueError, match=message):
            random_detections(2)[chosen]

    @pytest.mark.parametrize("score", [1.2, -0.1, "0.5", True, float("nan")])
    def test_scores_that_are_none(self, score):
        with pytest.raises(ValueError, match="a score is a number from 0 to 1"):
            random_detections(2).above(score)

    def test_areas(self):
        some = random_detections(3)
        np.testing.assert_array_equal(some.areas, [some.mask(i).sum() for i in range(len(some))])
        sides = some.boxes[:, 2:] - some.boxes[:, :2]
        np.testing.assert_array_equal(some.without_masks().areas, sides[:, 0] * sides[:, 1])
        assert some[:0].areas.shape == some[:0].without_masks().areas.shape == (0,)


class TestSuppression:
    @pytest.mark.parametrize("agnostic", [False, True])
    @pytest.mark.parametrize("limit", [0, 0.3, 0.7, 1])
    def test_it_is_greedy(self, limit, agnostic):
        some = random_detections(4, 80)
        left = []
        for i in range(len(some)):
            rivals = [j for j in left if agnostic or some.labels[j] == some.labels[i]]
            if all(iou(some.boxes[i], some.boxes[j]) <= limit for j in rivals):
                left.append(i)
        same(some.with_nms(limit, class_agnostic=agnostic), some[left])

    def test_it_is_recorded(self):
        some = random_detections(5, provenance=Provenance("naclip", protocol={"nms": 0.6}, fingerprint="abc"))
        after = some.with_nms(0.3)
        assert after.protocol == {"nms": 0.6, "with_nms": {"iou": 0.3, "class_agnostic": False}}
        assert after.provenance.fingerprint == "" and some.provenance.fingerprint == "abc"
        same(some[:0].with_nms(0.5), some[:0])

    def test_mistakes(self):
        with pytest.raises(ValueError, match="an IoU is a number from 0 to 1, got 50"):
            random_detections(5).with_nms(50)


class TestMerging:
    def test_parts_of_one_value_are_that_value(self):
        image = np.zeros((60, 80, 3), np.uint8)
        some = random_detections(6, image=image, path="a.png", provenance=Provenance("naclip", fingerprint="abc"))
        again = Detections.merge([some["owl"], some["cat"], some["dog"]])
        same(again, some)
        assert again.provenance == some.provenance and again.path == some.path and again.image is image

    def test_offsets_move_boxes_and_masks(self):
        parts = [random_detections(seed, 10, (30, 40)) for seed in (7, 8)]
        whole = Detections.merge(parts, offsets=[(0, 0), (50, 25)], size=(70, 100))
        assert whole.size == (70, 100) and whole.image is None and len(whole) == 20
        assert Detections.merge(parts, offsets=[(0, 0), (50, 25)]).size == (55, 90)
        for part, (x, y) in zip(parts, [(0, 0), (50, 25)], strict=True):
            for i in range(10):
                (at,) = np.flatnonzero(whole.scores == part.scores[i])
                np.testing.assert_array_equal(whole.boxes[at], part.boxes[i] + [x, y, x, y])
                expected = np.zeros((70, 100), bool)
                expected[y : y + 30, x : x + 40] = part.mask(i)
                np.testing.assert_array_equal(whole.mask(at), expected)
                assert whole.names[at] == part.names[i]

    def test_vocabularies_are_united_by_name(self):
        one = random_detections(9, words=Vocabulary.parse("cat, dog"), provenance=Provenance("naclip", {"a": 1}))
        other = random_detections(10, words=Vocabulary.parse("Dog|puppy, bird"), provenance=Provenance("gem", {"a": 1}))
        both = Detections.merge([one, other])
        assert both.vocabulary.names == ("cat", "dog", "bird")
        assert both.vocabulary.synonyms == (("cat",), ("dog", "puppy"), ("bird",))
        assert len(both["dog"]) == len(one["dog"]) + len(other["dog"]) and len(both["bird"]) == len(other["bird"])
        assert both.method == "naclip + gem" and both.provenance.options == {"a": 1}
        assert [each["method"] for each in both.protocol["merged"]] == ["naclip", "gem"]
        assert both.provenance.vocabulary_hash == both.vocabulary.hash and both.provenance.fingerprint == ""

    def test_saved_and_read_back(self, tmp_path):
        parts = [random_detections(seed, 5, provenance=Provenance(str(seed))) for seed in (11, 12)]
        both = Detections.merge(parts)
        again = Detections.load(both.save(tmp_path, "both")["json"])
        assert again.names == both.names and again.masks == both.masks and again.provenance == both.provenance

    def test_nothing_beside_something(self):
        some, boxes = random_detections(13), random_detections(13, masks=False)
        same(Detections.merge([some[:0].without_masks(), some]), some)
        same(Detections.merge([some[:0], boxes]), boxes)
        assert Detections.merge([some[:0]]).masks == []

    def test_mistakes(self):
        some, small = random_detections(14), random_detections(15, size=(30, 40))
        with pytest.raises(ValueError, match="one or more parts of a picture, got none"):
            Detections.merge([])
        with pytest.raises(ValueError, match=r"\(30, 40\), \(60, 80\).*offsets="):
            Detections.merge([some, small])
        with pytest.raises(ValueError, match=r"reach to \(H, W\) = \(70, 80\), beyond the picture of \(60, 80\)"):
            Detections.merge([some, small], offsets=[(0, 0), (0, 40)], size=(60, 80))
        with pytest.raises(ValueError, match="some boxes alone"):
            Detections.merge([some, some.without_masks()])
        for offsets in ([(0, 0)], [(0, 0), (0.5, 1)], [(0, 0), (-1, 0)], 3):
            with pytest.raises(ValueError, match="offsets are 2 pairs"):
                Detections.merge([some, small], offsets=offsets)


class TestUnion:
    def test_equal_words_are_left_alone(self):
        other = Vocabulary.parse(["cat|kitten", "dog", "owl"])
        assert unite([WORDS, other]) == (WORDS, [[0, 1, 2], [0, 1, 2]])

    def test_policies_come_together(self):
        one = Vocabulary.parse("cat, dog").with_background(["sky", "road"])
        other = Vocabulary.parse("owl").with_background(["sky", "sea"])
        plain = Vocabulary.parse("background, owl, bat")
        union, ids = unite([one, other, plain])
        assert union.names == ("background", "cat", "dog", "owl", "bat")
        assert union.background.words == ("sky", "road", "sea")
        assert ids == [[0, 1, 2], [0, 3], [0, 3, 4]]
        assert unite([one, plain])[0].background == one.background

    def test_colors_that_were_chosen_stay(self):
        one = Vocabulary.parse([{"name": "cat", "color": [1, 2, 3]}, "dog"])
        other = Vocabulary.parse([{"name": "CAT", "color": [9, 9, 9]}, {"name": "owl", "color": [4, 5, 6]}])
        union, _ = unite([Vocabulary.parse("bat"), one, other])
        assert union.names == ("bat", "cat", "dog", "owl")
        assert union.colors[1] == (1, 2, 3) and union.colors[3] == (4, 5, 6)
        default = Vocabulary.parse("bat, cat, dog, owl").colors
        assert unite([Vocabulary.parse("bat, cat"), Vocabulary.parse("dog, owl")])[0].colors == default


class TestPlacedMasks:
    @pytest.mark.parametrize("size, offset, whole", [((5, 7), (0, 0), (5, 7)), ((5, 7), (3, 2), (9, 12))])
    @pytest.mark.parametrize("fill", [0.0, 0.4, 0.9, 1.0])
    def test_there_and_back(self, size, offset, whole, fill):
        rng, (x, y) = np.random.default_rng(0), offset
        for _ in range(20):
            mask = rng.random(size) < fill
            expected = np.zeros(whole, bool)
            expected[y : y + size[0], x : x + size[1]] = mask
            placed = rle.place(rle.encode(mask), offset, whole)
            assert placed == rle.encode(expected) and rle.area(placed) == mask.sum()
            np.testing.assert_array_equal(rle.decode(placed)[y : y + size[0], x : x + size[1]], mask)

    def test_a_strip_of_full_height(self):
        mask = np.ones((4, 3), bool)
        assert rle.decompress(rle.place(rle.encode(mask), (2, 0), (4, 8))["counts"]).tolist() == [8, 12, 12]

    @pytest.mark.parametrize("offset", [(-1, 0), (0, 1), (6, 0)])
    def test_beyond_the_picture(self, offset):
        with pytest.raises(ValueError, match="reaches beyond a picture of"):
            rle.place(rle.encode(np.ones((5, 7), bool)), offset, (5, 12))
