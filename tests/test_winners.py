"""The label map by branch and bound is that of the plain pipeline: all maps enlarged, averaged, resized, compared."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.argmax import make_axis
from ovseg.dense import DenseFeatures
from ovseg.dense.windows import windows
from ovseg.predict.class_maps import ImageFeatures
from ovseg.predict.pipeline import Pipeline
from ovseg.predict.protocol import Protocol
from ovseg.score import CosineScore

GENERATOR = torch.Generator


def unit(count: int, width: int = 48, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=GENERATOR().manual_seed(seed)), dim=1)


def enlarged(maps: torch.Tensor, size) -> torch.Tensor:
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


def plain(pipeline: Pipeline, encoded, text: torch.Tensor) -> torch.Tensor:
    """τ·s of all words at every pixel of the picture, (T, H, W): the slow, obvious version."""
    if pipeline.scorer.probabilities or encoded.whole is not None:
        return plain_part(pipeline, encoded, text)
    return torch.cat([plain_part(pipeline, encoded, part) for part in text.split(1000)])


def plain_part(pipeline: Pipeline, encoded, text: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(len(text), *encoded.resized)
    count = torch.zeros(encoded.resized)
    boxes = iter(encoded.boxes)
    for part in encoded.parts:
        left, top, right, bottom = part.padding
        for scores in pipeline.scorer(part, text).contiguous():
            y0, x0, y1, x1 = next(boxes)
            maps = enlarged(scores, (y1 - y0 + top + bottom, x1 - x0 + left + right))
            total[:, y0:y1, x0:x1] += maps[:, top : top + y1 - y0, left : left + x1 - x0]
            count[y0:y1, x0:x1] += 1
    mean = total / count
    if encoded.whole is not None:
        side = pipeline.protocol.window
        whole = enlarged(pipeline.scorer(encoded.whole, text)[0], (side, side))
        mean = (mean + enlarged(whole, encoded.resized)) / 2
    return pipeline.protocol.logit_scale * enlarged(mean, encoded.size)


def reference(logits: torch.Tensor, classes: list[int], exclude=()):
    """Labels, probability of the winner and its lead, (H, W) each."""
    owners = torch.tensor(classes)
    by_class = torch.stack([logits[owners == k].amax(0) for k in range(classes[-1] + 1)])
    total = logits.logsumexp(0)
    by_class[list(exclude)] = -torch.inf
    two = by_class.topk(min(2, len(by_class)), 0)
    p = (two.values - total).exp()
    return two.indices[0], p[0], p[0] - (p[1] if len(p) > 1 else 0)


def assert_equal(found, expected, tie: float = 1e-5):
    labels, scores, margin = expected
    differs = found.labels != labels
    assert differs.float().mean() <= 1e-4 and (not differs.any() or margin[differs].max() < tie)
    assert (found.scores - scores).abs().max() < 5e-4 and (found.margin - margin).abs().max() < 1e-3


# --- the linear map --------------------------------------------------------------------------------------------------


def up(maps: torch.Tensor, length: int) -> torch.Tensor:
    return F.interpolate(maps[None], length, mode="linear", align_corners=False)[0]


@pytest.mark.parametrize("seed", range(60))
def test_an_axis_is_interpolation_averaging_and_interpolation(seed):
    """Unit maps of every patch through windows, their mean, and the resizing; and through a whole view."""
    rng = np.random.default_rng(seed)
    resized, size, patches = (int(rng.integers(1, n)) for n in (60, 90, 9))
    window = int(rng.integers(1, resized + 1))
    stride, padding = int(rng.integers(1, window + 1)), tuple(rng.integers(0, 4, 2).tolist())
    starts = sorted({top for top, *_ in windows(resized, 1, window, stride)})
    side, count = int(rng.integers(1, 30)), int(rng.integers(1, 9))
    axis = make_axis(starts, window, patches, padding, resized, size, (side, count))
    total, covered = torch.zeros(len(starts) * patches, resized), torch.zeros(resized)
    for i, start in enumerate(starts):
        maps = up(torch.eye(patches), window + sum(padding))[:, padding[0] : padding[0] + window]
        total[i * patches : (i + 1) * patches, start : start + window] += maps
        covered[start : start + window] += 1
    for weights, expected in (
        (axis.weights, up(total / covered, size)),
        (axis.whole, up(up(up(torch.eye(count), side), resized), size)),
    ):
        part = axis.part[:, None]
        found = weights[axis.low] * (1 - part) + weights[axis.next[axis.low]] * part
        torch.testing.assert_close(found.T, expected, atol=5e-5, rtol=0)
    assert axis.breakpoints <= max(size, 1) and axis.weights.min() >= 0


# --- the label map ---------------------------------------------------------------------------------------------------

SETTINGS = [
    dict(short_side=None, window=None),
    dict(short_side=None, window=64, stride=32),
    dict(short_side=None, window=64, stride=48),  # windows whose patches do not meet
    dict(window=48, stride=16, short_side=112),
    dict(window=64, stride=32, short_side=200),
    dict(window=64, stride=32, size=(96, 128), whole_view=True),
    dict(short_side=None, window=64, stride=64, view=80),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(f"{k}{v}" for k, v in s.items()))
@pytest.mark.parametrize("words", [1, 2, 7, 100])
def test_equal_to_the_plain_pipeline(vit, picture, settings, words):
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(**settings))
    encoded, text = pipeline.encode(picture), unit(words)
    expected = reference(plain(pipeline, encoded, text), list(range(words)))
    assert_equal(pipeline.decode(encoded, text, range(words)), expected)


@pytest.mark.parametrize("shape", [(90, 130), (131, 67), (64, 64), (33, 200)])
def test_odd_sizes(vit, shape):
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pipeline = Pipeline(vit, dict(type="SCLIP"), Protocol(short_side=None, window=48, stride=32))
    encoded, text = pipeline.encode(picture), unit(30)
    expected = reference(plain(pipeline, encoded, text), list(range(30)))
    assert_equal(pipeline.decode(encoded, text, range(30)), expected)


def test_more_words_than_features(vit, picture):
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(short_side=None, window=32, stride=16, memory=2**22))
    encoded, text = pipeline.encode(np.ascontiguousarray(picture[:45, :65])), unit(1000)
    logits = plain(pipeline, encoded, text)
    assert_equal(pipeline.decode(encoded, text, range(1000)), reference(logits, list(range(1000))))


@pytest.mark.parametrize("roughness", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(
    "words, settings",
    [(30, dict(scorer=dict(type="EnlargedScore", side=7))), (12, {}), (300, {}), (300, dict(whole_view=True))],
    ids=["enlarged", "few", "many", "whole"],
)
def test_features_without_any_structure(vit, words, settings, roughness):
    """Neighboring patches that have nothing in common leave many words in each cell."""
    settings = dict(settings)
    scorer = settings.pop("scorer", None)
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(window=32, stride=24, **settings), scorer)
    boxes, generator = windows(61, 83, 32, 24), GENERATOR().manual_seed(words)
    rough = 1 + roughness * torch.randn(len(boxes) + 1, 48, 4, 5, generator=generator)
    parts = [DenseFeatures(part, part.mean((2, 3)), (1, 0, 2, 3)) for part in rough[:-1].split(4)]
    whole = DenseFeatures(rough[-1:], rough[-1:].mean((2, 3))) if pipeline.protocol.whole_view else None
    encoded, text = ImageFeatures(parts, boxes, (61, 83), (101, 77), None, None, whole), unit(words)
    expected = reference(plain(pipeline, encoded, text), list(range(words)))
    assert_equal(pipeline.decode(encoded, text, range(words)), expected)


def test_of_equal_words_the_first_wins(vit, picture):
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(short_side=None, window=64, stride=32))
    encoded, text = pipeline.encode(picture), torch.eye(48)[:4]
    once, twice = (pipeline.decode(encoded, text.repeat(n, 1), range(4 * n)).labels for n in (1, 2))
    assert torch.equal(once, twice)


def test_a_large_vocabulary(vit, picture):
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(short_side=None, window=None, memory=2**24))
    small = np.ascontiguousarray(picture[:20, :27])
    encoded, text = pipeline.encode(small), unit(20_000)
    labels = plain(pipeline, encoded, text).argmax(0)
    found = pipeline.decode(encoded, text, range(20_000)).labels
    assert (found != labels).float().mean() <= 1e-4


def test_synonyms(vit, picture):
    classes = [0, 0, 1, 2, 2, 2, 3, 4, 4, 5]
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(short_side=None, window=64, stride=32))
    encoded, text = pipeline.encode(picture), unit(len(classes))
    found = pipeline.decode(encoded, text, classes)
    assert_equal(found, reference(plain(pipeline, encoded, text), classes))


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.11, 0.3, 0.9])
@pytest.mark.parametrize("words", [5, 60])
def test_below_a_threshold(vit, picture, threshold, words):
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(short_side=None, window=64, stride=32))
    encoded, text = pipeline.encode(picture), unit(words)
    scores = reference(plain(pipeline, encoded, text), list(range(words)))[1]
    found = pipeline.decode(encoded, text, range(words)).below(threshold)
    unsure = (scores - threshold).abs() < 1e-4
    assert ((found != (scores < threshold)) & ~unsure).sum() == 0


def test_small_areas_go(vit, picture):
    pipeline = Pipeline(
        vit, dict(type="MaskCLIP"), Protocol(short_side=None, window=64, stride=32, area_threshold=0.08)
    )
    encoded, text = pipeline.encode(picture), unit(12)
    logits = plain(pipeline, encoded, text)
    counts = torch.bincount(logits.argmax(0).flatten(), minlength=12)
    small = [k for k in range(12) if counts[k] < 0.08 * counts.sum()]
    assert any(counts[k] for k in small)
    assert_equal(pipeline.decode(encoded, text, range(12)), reference(logits, list(range(12)), small))


class Probabilities(CosineScore):
    """Scores of a window that are probabilities."""

    probabilities = True

    def forward(self, dense, text):
        return (40 * super().forward(dense, text)).softmax(1)


def test_probabilities_averaged_over_windows(vit, picture):
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(short_side=None, window=64, stride=32), Probabilities())
    encoded, text = pipeline.encode(picture), unit(9)
    mean = plain(pipeline, encoded, text) / pipeline.protocol.logit_scale
    found = pipeline.decode(encoded, text, range(9))
    differs = found.labels != mean.argmax(0)
    assert differs.float().mean() <= 1e-4
    assert (found.scores - mean.amax(0) / mean.sum(0)).abs().max() < 1e-4


def test_permuting_words_permutes_the_result(vit, picture):
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(short_side=None, window=64, stride=32))
    encoded, text, order = pipeline.encode(picture), unit(40), torch.randperm(40, generator=GENERATOR().manual_seed(3))
    first = pipeline.decode(encoded, text, range(40)).labels
    second = pipeline.decode(encoded, text[order], range(40)).labels
    assert (order[second] != first).float().mean() <= 1e-4


def test_the_memory_budget_changes_nothing(vit, picture):
    text = unit(500)
    found = []
    for memory in (2**20, 2**22, 2**28):
        pipeline = Pipeline(vit, dict(type="MaskCLIP"), Protocol(short_side=None, window=64, stride=32, memory=memory))
        found.append(pipeline.decode(pipeline.encode(picture), text, range(500)))
    for other in found[1:]:
        assert (other.labels != found[0].labels).float().mean() <= 1e-4
        assert (other.scores - found[0].scores).abs().max() < 1e-4


def test_real_features():
    """The embedded model on a composed scene, all words of scenes."""
    from ovseg.datasets.scenes import SceneComposer, object_names, stuff_names
    from ovseg.text.encoder import TextEncoder
    from ovseg.towers import load_tower

    tower = load_tower(None)
    scene = SceneComposer(size=128)(5)
    text = TextEncoder(tower, "name")([*object_names(), *stuff_names()])
    pipeline = Pipeline(tower, dict(type="CLIPSurgery"), Protocol(**(tower.card.protocol | dict(templates="name"))))
    encoded = pipeline.encode(scene.image)
    expected = reference(plain(pipeline, encoded, text), list(range(len(text))))
    assert_equal(pipeline.decode(encoded, text, range(len(text))), expected)
