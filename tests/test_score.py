"""Scores and the streaming argmax, derived again in numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.argmax import RunningArgmax, class_chunks, resize_rows, source_rows
from ovseg.dense import DenseFeatures
from ovseg.registry import SCORERS
from ovseg.score import CosineScore, DenoisedScore

GRID = (3, 5)


def unit(x, axis):
    return x / np.linalg.norm(x, axis=axis, keepdims=True)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.fixture
def case():
    """Dense features of two pictures with keys, and 6 unit word embeddings; the arrays lie close, so that no softmax
    saturates."""
    rng = np.random.default_rng(0)
    text = unit(1 + 0.1 * rng.normal(size=(6, 16)), 1).astype(np.float32)
    features = (7 * (1 + 0.2 * rng.normal(size=(2, 16, *GRID)))).astype(np.float32)
    keys = rng.normal(size=(2, 15, 8)).astype(np.float32)
    dense = DenseFeatures(torch.from_numpy(features), torch.zeros(2, 16), extras={"keys": torch.from_numpy(keys)})
    cosine = np.einsum("behw,te->bthw", unit(features.astype(np.float64), 1), text)
    return dense, torch.from_numpy(text), cosine, keys.astype(np.float64)


def test_cosine(case):
    dense, text, cosine, _ = case
    np.testing.assert_allclose(CosineScore()(dense, text), cosine, atol=1e-6)


def test_cosine_of_some_words_is_a_part_of_all(case):
    dense, text, cosine, _ = case
    scorer = CosineScore()
    prepared = scorer.prepare(dense)
    np.testing.assert_allclose(scorer.score(prepared, text[2:5]), cosine[:, 2:5], atol=1e-6)


@pytest.mark.parametrize("denoising", [None, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("smoothing", [None, 0.2, 1.0])
@pytest.mark.parametrize("key_norm", ["channels", "positions"])
def test_denoised(case, denoising, smoothing, key_norm):
    dense, text, cosine, keys = case
    expected = cosine
    if denoising is not None:
        peak = softmax(100 * cosine, 1).max((2, 3), keepdims=True)
        expected = np.where(peak < denoising, -100.0, cosine)
    if smoothing is not None:
        p = softmax(100 * expected, 1).reshape(2, 6, 15)
        k = unit(keys, 2 if key_norm == "channels" else 1)
        smooth = np.einsum("bpq,btq->btp", k @ k.transpose(0, 2, 1), p)
        unsure = p.max(1, keepdims=True) < smoothing
        expected = np.where(unsure, smooth, p).reshape(2, 6, *GRID)
    scorer = DenoisedScore(smoothing, denoising, key_norm)
    assert scorer.probabilities == (smoothing is not None)
    np.testing.assert_allclose(scorer(dense, text), expected, atol=2e-5, rtol=1e-4)


def test_denoised_without_thresholds_is_the_cosine(case):
    dense, text, cosine, _ = case
    np.testing.assert_allclose(DenoisedScore()(dense, text), cosine, atol=1e-6)


def test_smoothing_without_keys(case):
    dense, text, _, _ = case
    dense.extras.clear()
    with pytest.raises(ValueError, match="keys=True"):
        DenoisedScore(key_smoothing=1.0)(dense, text)


def test_bad_scorers():
    with pytest.raises(ValueError, match="channels"):
        DenoisedScore(key_norm="rows")
    with pytest.raises(ValueError, match="key_smoothing"):
        SCORERS.build(dict(type="DenoisedScore", key_smooth=1.0))


@pytest.mark.parametrize(
    "prompt_to_class, most, expected",
    [
        ([0, 1, 2, 3], 2, [(0, 2), (2, 4)]),
        ([0, 1, 2], 2, [(0, 2), (2, 3)]),
        ([0, 1, 2], 1, [(0, 1), (1, 2), (2, 3)]),
        ([0, 1, 2], 99, [(0, 3)]),
        ([5], 1, [(0, 1)]),
        ([0, 0, 0, 1], 2, [(0, 3), (3, 4)]),  # synonyms stay together even where they are too many
        ([0, 1, 1, 2], 2, [(0, 1), (1, 3), (3, 4)]),
        ([1, 1, 2, 2, 4], 4, [(0, 4), (4, 5)]),
    ],
)
def test_class_chunks(prompt_to_class, most, expected):
    assert [(s.start, s.stop) for s in class_chunks(prompt_to_class, most)] == expected


def test_class_chunks_cover_all_words():
    rng = np.random.default_rng(1)
    for _ in range(50):
        prompt_to_class = np.sort(rng.integers(0, 12, rng.integers(1, 40))).tolist()
        most = int(rng.integers(1, 10))
        chunks = list(class_chunks(prompt_to_class, most))
        assert [i for c in chunks for i in range(c.start, c.stop)] == list(range(len(prompt_to_class)))
        for chunk in chunks:
            inside = prompt_to_class[chunk]
            assert len(inside) <= most or len(set(inside)) == 1
            assert chunk.start == 0 or prompt_to_class[chunk.start - 1] != inside[0]


SIZES = [1, 2, 3, 7, 14, 28, 33, 100]


@pytest.mark.parametrize("h", SIZES)
@pytest.mark.parametrize("height", SIZES)
def test_resize_rows(h, height):
    maps = torch.randn(2, 3, h, 5, generator=torch.Generator().manual_seed(h * 1000 + height))
    whole = F.interpolate(maps, (height, 11), mode="bilinear", align_corners=False)
    rng = np.random.default_rng(h)
    pairs = np.sort(rng.integers(0, height + 1, (6, 2)), 1).tolist()
    for a, b in [(0, height), (0, 1), (height - 1, height), *(pair for pair in pairs if pair[0] < pair[1])]:
        rows = resize_rows(maps, (height, 11), (a, b))
        torch.testing.assert_close(rows, whole[:, :, a:b], atol=2e-5, rtol=1e-5)
        first, last = source_rows(h, height, (a, b))
        assert 0 <= first < last <= h
        band = resize_rows(maps[..., first:last, :], (height, 11), (a, b), (first, h))
        torch.testing.assert_close(band, whole[:, :, a:b], atol=2e-5, rtol=1e-5)


def stream(logits, classes, most, exclude=frozenset()):
    running = RunningArgmax(logits.shape[1:], "cpu", exclude)
    for part in class_chunks(classes, most):
        running.update(torch.from_numpy(logits[part]), classes[part])
    return [x.numpy() for x in running.result()]


def at_once(logits, classes, exclude=()):
    """Softmax over the words, maximum over the words of a class, best and second-best class."""
    p = softmax(logits.astype(np.float64), 0)
    ids = [c for c in sorted(set(classes)) if c not in exclude]
    by_class = np.stack([p[np.array(classes) == c].max(0) for c in ids])
    ordered = np.sort(by_class, 0)
    second = ordered[-2] if len(ids) > 1 else 0 * ordered[-1]
    return np.array(ids)[by_class.argmax(0)], ordered[-1], ordered[-1] - second


@pytest.mark.parametrize("seed", range(12))
def test_running_argmax_equals_softmax_and_argmax(seed):
    rng = np.random.default_rng(seed)
    classes = np.sort(rng.integers(0, 9, rng.integers(2, 30))).tolist()
    logits = rng.normal(0, 4, (len(classes), 6, 7)).astype(np.float32)
    present = sorted(set(classes))
    exclude = frozenset(present[1 : 1 + seed % 3]) if len(present) > 4 else frozenset()
    expected = at_once(logits, classes, exclude)
    for most in (1, 2, 5, 1000):
        labels, p, margin = stream(logits, classes, most, exclude)
        assert labels.dtype == np.int64 and (labels == expected[0]).all()
        np.testing.assert_allclose(p, expected[1], atol=1e-6, rtol=1e-5)
        np.testing.assert_allclose(margin, expected[2], atol=1e-6, rtol=1e-4)


def test_large_logits_do_not_overflow():
    logits = np.array([500.0, -500.0, 499.0], np.float32).reshape(3, 1, 1)
    labels, p, margin = stream(logits, [0, 1, 2], 1)
    assert labels[0, 0] == 0 and p[0, 0] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-5) and np.isfinite(margin).all()


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_ties_go_to_the_lowest_id(most):
    logits = np.zeros((6, 2, 2), np.float32)
    labels, p, margin = stream(logits, [2, 3, 3, 4, 6, 7], most)
    assert (labels == 2).all() and (margin == 0).all()
    np.testing.assert_allclose(p, 1 / 6, rtol=1e-6)


def test_excluded_words_still_count_in_the_softmax():
    logits = np.log(np.array([6.0, 3.0, 1.0], np.float32)).reshape(3, 1, 1)
    labels, p, margin = stream(logits, [0, 1, 2], 1, frozenset({0}))
    assert labels[0, 0] == 1 and p[0, 0] == pytest.approx(0.3) and margin[0, 0] == pytest.approx(0.2)
    labels, p, _ = stream(logits, [0, 1, 2], 2, frozenset({0, 1, 2}))
    assert labels[0, 0] == 0 and p[0, 0] == 0


def test_permuting_the_words_permutes_the_result():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (8, 6, 7)).astype(np.float32)
    order = rng.permutation(8)
    first, second = (stream(x, list(range(8)), 3) for x in (logits, logits[order]))
    assert (first[0] == order[second[0]]).all()
    for a, b in zip(first[1:], second[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_best_synonym_speaks_for_its_class():
    from ovseg.argmax import max_over_synonyms

    words = torch.randn(2, 4, 3, 5)
    found = max_over_synonyms(words, torch.tensor([0, 1, 1, 3]), 4)
    torch.testing.assert_close(found[:, 1], words[:, 1:3].amax(1))
    assert torch.equal(found[:, 0], words[:, 0]) and torch.equal(found[:, 3], words[:, 3]) and (found[:, 2] == 0).all()
    assert max_over_synonyms(words, torch.arange(4), 4) is words
