"""Refiners after PAMR: the cluster vote, the mean-field CRF, guided upsampling."""

import numpy as np
import pytest
import torch

import ovseg
from ovseg.refine import ClusterVote, GuidedUpsampling, MeanFieldCRF, Picture
from ovseg.refine.cluster import nearest_window, vote
from ovseg.registry import REFINERS, names


def test_vote_takes_the_commonest_label_and_the_lowest_of_equals():
    labels = torch.tensor([[0, 2, 2, 5], [1, 2, 5, 5], [3, 1, 7, 7]])
    regions = torch.tensor([[9, 9, 9, 4], [9, 9, 4, 4], [2, 2, 1, 1]])
    expected = torch.tensor([[2, 2, 2, 5], [2, 2, 5, 5], [1, 1, 7, 7]])
    assert torch.equal(vote(labels, regions), expected)


def test_nearest_window_of_overlapping_ones():
    owner = nearest_window([(0, 0, 4, 4), (0, 2, 4, 6)], (4, 6))
    assert torch.equal(owner, torch.tensor([0, 0, 0, 1, 1, 1]).expand(4, 6))


def test_the_center_between_windows_is_covered_once():
    boxes = [(y, x, y + 48, x + 48) for y in (0, 24, 40) for x in (0, 32)]
    owner = nearest_window(boxes, (88, 80))
    for i, (top, left, bottom, right) in enumerate(boxes):
        ys, xs = np.nonzero((owner == i).numpy())
        assert ys.min() >= top and ys.max() < bottom and xs.min() >= left and xs.max() < right


SETTINGS = dict(short_side=64, templates="name", classes="cat, dog, sofa")


@pytest.mark.parametrize("window", [None, 48])
def test_cliptrase_with_and_without_windows(vit, picture, window):
    plain = ovseg.load("cliptrase", tower=vit, window=window, stride=32, refine=[], **SETTINGS)(picture)
    refine = [dict(type="ClusterVote", eps=0.3, min_samples=2)]
    voted = ovseg.load("cliptrase", tower=vit, window=window, stride=32, refine=refine, **SETTINGS)(picture)
    assert voted.labels.shape == plain.labels.shape and set(np.unique(voted.labels)) <= set(np.unique(plain.labels))


def test_no_core_point_keeps_the_prediction(vit, picture):
    refine = [dict(type="ClusterVote", eps=1e-6, min_samples=5)]
    plain = ovseg.load("cliptrase", tower=vit, refine=[], **SETTINGS)(picture)
    kept = ovseg.load("cliptrase", tower=vit, refine=refine, **SETTINGS)(picture)
    assert np.array_equal(plain.labels, kept.labels)


def test_one_cluster_gives_one_label(vit, picture):
    refine = [dict(type="ClusterVote", eps=1e6, min_samples=1)]
    result = ovseg.load("cliptrase", tower=vit, refine=refine, **SETTINGS)(picture)
    assert len(np.unique(result.labels)) == 1


def test_cluster_vote_needs_a_correlation(vit, picture):
    with pytest.raises(ValueError, match="cliptrase"):
        ovseg.load("sclip", tower=vit, refine=["ClusterVote"], **SETTINGS)(picture)


@pytest.mark.parametrize("name", names(REFINERS))
@pytest.mark.parametrize("even", [False, True])
def test_every_refiner_behind_a_method(name, even, vit, picture):
    picture = np.full_like(picture, 90) if even else picture
    result = ovseg.load("cliptrase", tower=vit, refine=[name], **SETTINGS)(picture)
    assert result.labels.shape == picture.shape[:2] and np.isfinite(result.scores).all()


def crf_in_numpy(unary, image, steps, radius, wb, ws, ta, tb, tg):
    """Mean field by loops over pixels and neighbors."""
    classes, height, width = unary.shape

    def soft(x):
        e = np.exp(x - x.max(0))
        return e / e.sum(0)

    q, count = soft(unary), (2 * radius + 1) ** 2 - 1
    for _ in range(steps):
        message = np.zeros_like(q)
        for y in range(height):
            for x in range(width):
                for v in range(max(0, y - radius), min(height, y + radius + 1)):
                    for u in range(max(0, x - radius), min(width, x + radius + 1)):
                        if (v, u) == (y, x):
                            continue
                        far = (v - y) ** 2 + (u - x) ** 2
                        color = ((image[:, y, x] - image[:, v, u]) ** 2).sum()
                        k = wb * np.exp(-far / (2 * ta**2) - color / (2 * tb**2)) + ws * np.exp(-far / (2 * tg**2))
                        message[:, y, x] += k / count * q[:, v, u]
        q = soft(unary + message)
    return q.argmax(0)


def test_crf_equation():
    rng = np.random.default_rng(0)
    unary, image = rng.normal(0, 1, (3, 7, 9)), rng.normal(0, 0.3, (3, 7, 9))
    crf = MeanFieldCRF(3, 2, 6.0, 2.0, 5.0, 0.4, 2.0)
    stage = Picture([], [], (7, 9), torch.from_numpy(image), None, lambda classes: torch.from_numpy(unary)[classes])
    ours = crf.relabel(torch.from_numpy(unary.argmax(0)), stage)
    assert np.array_equal(ours.numpy(), crf_in_numpy(unary, image, 3, 2, 6.0, 2.0, 5.0, 0.4, 2.0))


def test_crf_removes_a_speck():
    labels, logits = torch.zeros(9, 9, dtype=torch.long), torch.zeros(2, 9, 9)
    labels[4, 4], logits[0], logits[1, 4, 4] = 1, 1.0, 1.5
    stage = Picture([], [], (9, 9), torch.zeros(3, 9, 9), None, lambda classes: logits[classes])
    assert (MeanFieldCRF().relabel(labels, stage) == 0).all()


def test_guided_filter_follows_a_step():
    image = torch.zeros(1, 3, 32, 32)
    image[..., 13:] = 1.0
    blurred = torch.sigmoid((torch.arange(32.0) - 14.5) / 4).expand(1, 1, 32, 32)
    refiner = GuidedUpsampling(4, 1e-3)
    sharp = refiner.apply_to(blurred, refiner.affinity(image))
    jump, before = (float(m[0, 0, 16, 13] - m[0, 0, 16, 12]) for m in (sharp, blurred))
    assert jump > 3 * before
    even = torch.full((1, 2, 32, 32), 0.3)
    torch.testing.assert_close(refiner.apply_to(even, refiner.affinity(image)), even, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [lambda: ClusterVote(0), lambda: ClusterVote(1, 0), lambda: MeanFieldCRF(radius=0), lambda: GuidedUpsampling(0)],
)
def test_bad_options(make):
    with pytest.raises(ValueError):
        make()


def test_mask_vote(vit, picture):
    halves = np.zeros(picture.shape[:2], int)
    halves[:, 65:], halves[:10] = 1, -1
    load = dict(tower=vit, short_side=64, templates="name", classes="cat, dog, sofa")
    plain = ovseg.load("naclip", refine=[], **load)(picture).labels
    voted = ovseg.load("naclip", refine=[dict(type="MaskVote", masks=lambda image: halves)], **load)(picture).labels
    assert np.array_equal(voted[:10], plain[:10]) and all(len(np.unique(voted[halves == i])) == 1 for i in (0, 1))
    with pytest.raises(ValueError, match="must have the size of the picture"):
        ovseg.load("naclip", refine=[dict(type="MaskVote", masks=lambda image: halves[1:])], **load)(picture)
