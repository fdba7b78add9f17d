"""Windows, resizing, stitching, memory plan and area threshold of one prediction."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.dense.windows import windows
from ovseg.pictures.images import load_image
from ovseg.predict.pipeline import Pipeline
from ovseg.predict.protocol import Protocol
from ovseg.predict.resize import resize, target_size
from ovseg.refine import PAMR
from ovseg.score import DenoisedScore
from ovseg.text.encoder import TextEncoder
from ovseg.towers import load_tower
from tests.conftest import ROOT

MIB = 2**20
PAMR_ONCE = (dict(type="PAMR", steps=1),)


def words(count, seed=0, width=48):
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def run(tower, picture, text, classes=None, method="Vanilla", scorer=None, **settings):
    dense = dict(type=method) if isinstance(method, str) else method
    pipeline = Pipeline(tower, dense, Protocol(**settings), scorer)
    classes = list(range(len(text))) if classes is None else classes
    return tuple(pipeline.decode(pipeline.encode(picture), text, classes))


def assert_same(first, second, differing=0.0):
    assert (first[0] != second[0]).float().mean() <= differing
    for a, b in zip(first[1:], second[1:], strict=True):
        assert (a - b).abs().quantile(1 - differing) < 1e-4


# --- windows and sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "height, width, window, stride, rows, columns",
    [
        (336, 448, 224, 112, 2, 3),
        (336, 500, 224, 112, 2, 4),  # 276 = 2·112 + 52 over: one more, shifted back
        (225, 224, 224, 112, 2, 1),
        (224, 224, 224, 112, 1, 1),
        (448, 1000, 448, 224, 1, 4),
        (100, 80, 224, 112, 1, 1),
        (100, 300, 224, 112, 1, 2),
        (448, 448, 224, 224, 2, 2),
        (336, 448, None, 112, 1, 1),
    ],
)
def test_windows(height, width, window, stride, rows, columns):
    boxes = windows(height, width, window, stride)
    assert len(boxes) == rows * columns and boxes == sorted(boxes)
    side = (min(window or height, height), min(window or width, width))
    assert {(bottom - top, right - left) for top, left, bottom, right in boxes} == {side}
    assert boxes[-1][2:] == (height, width)  # the last window ends at the border


def test_windows_cover_every_pixel_inside_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(40):
        height, width, window = rng.integers(1, 70, 3).tolist()
        stride = int(rng.integers(1, window + 1))
        covered = np.zeros((height, width), int)
        boxes = windows(height, width, window, stride)
        for top, left, bottom, right in boxes:
            assert 0 <= top < bottom <= height and 0 <= left < right <= width
            covered[top:bottom, left:right] += 1
        assert covered.min() >= 1
        rows, columns = (max(side - window + stride - 1, 0) // stride + 1 for side in (height, width))
        assert len(boxes) == rows * columns


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 500), (100, 3000), (1, 1), (51, 77), (1080, 1920)])
@pytest.mark.parametrize("short_side, max_long_side", [(336, 2048), (448, 2048), (560, 800)])
def test_target_size_is_that_of_mmcv(size, short_side, max_long_side):
    import ovseg  # noqa: F401  before mmcv, for the stand-in of its operators

    mmcv = pytest.importorskip("mmcv")
    expected = mmcv.rescale_size(size[::-1], (max_long_side, short_side))[::-1]
    assert target_size(*size, Protocol(short_side=short_side, max_long_side=max_long_side)) == expected


def test_resize_is_that_of_mmcv(picture):
    import ovseg  # noqa: F401

    mmcv = pytest.importorskip("mmcv")
    expected = mmcv.imrescale(picture, (2048, 64), interpolation="bilinear", backend="cv2")
    assert (resize(picture, Protocol(short_side=64)) == expected).all()


@pytest.mark.parametrize("settings, size", [({"short_side": None}, (90, 130)), ({"size": (50, 70)}, (50, 70))])
def test_other_target_sizes(settings, size, picture):
    assert resize(picture, Protocol(**settings)).shape == (*size, 3)


# --- stitching ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, padding", [("Vanilla", "floor"), ("ClearCLIP", "symmetric"), ("MaskCLIP", "corner")])
def test_mean_over_windows(method, padding, vit, picture):
    """Every window on its own, enlarged to its padded size, cut, added; 56 pixels are no whole number of patches."""
    settings = dict(short_side=100, window=56, stride=40, window_batch=2)
    pipeline = Pipeline(vit, dict(type=method), Protocol(**settings))
    assert pipeline.dense.padding == padding
    text = words(5)
    small = resize(picture, pipeline.protocol)
    pixels = vit.normalize(torch.from_numpy(small).permute(2, 0, 1)[None] / 255)
    height, width = small.shape[:2]
    total, count = torch.zeros(5, height, width), torch.zeros(height, width)
    tops = [min(i * 40, height - 56) for i in range(-(-(height - 56) // 40) + 1)]
    lefts = [min(i * 40, width - 56) for i in range(-(-(width - 56) // 40) + 1)]
    for y in tops:
        for x in lefts:
            dense = pipeline.dense(vit, pixels[:, :, y : y + 56, x : x + 56])
            cosine = torch.einsum("behw,te->bthw", F.normalize(dense.features, dim=1), text)
            left, top, right, bottom = dense.padding
            padded = (56 + top + bottom, 56 + left + right)
            large = F.interpolate(cosine, padded, mode="bilinear", align_corners=False)[0]
            total[:, y : y + 56, x : x + 56] += large[:, top : top + 56, left : left + 56]
            count[y : y + 56, x : x + 56] += 1
    final = F.interpolate((total / count)[None], (90, 130), mode="bilinear", align_corners=False)[0]
    p = (40 * final).softmax(0)
    labels, scores, margin = pipeline.decode(pipeline.encode(picture), text, range(5))
    top2 = p.topk(2, 0).values
    assert (labels != p.argmax(0)).float().mean() < 1e-3
    torch.testing.assert_close(scores, top2[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(margin, top2[0] - top2[1], atol=1e-4, rtol=1e-3)


def test_one_window_is_the_whole_picture(vit, picture):
    assert_same(*(run(vit, picture, words(6), short_side=90, window=w, stride=20) for w in (200, None)))


def test_window_batches_change_nothing(vit, picture):
    results = [run(vit, picture, words(6), short_side=90, window=48, stride=24, window_batch=n) for n in (1, 3, 99)]
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


@pytest.mark.parametrize("method", ["NACLIP", "ResCLIP", "CLIPtrase", "MaskCLIP"])
@pytest.mark.parametrize("settings", [dict(window=48, stride=24), dict(window=None), dict(window=48, whole_view=True)])
def test_pictures_of_any_sizes_share_passes(vit, picture, method, settings):
    """Some windows have the same size, some pictures are smaller than a window."""
    pipeline = Pipeline(
        vit, dict(type=method), Protocol(short_side=None, window_batch=99, **dict(stride=24) | settings)
    )
    pictures = [picture, picture[:60, :75], picture[:40, :30], picture[::-1].copy()]
    passes, features = [], pipeline.features
    pipeline.features = lambda views: passes.append(len(views)) or features(views)
    together = pipeline.encode_all(pictures)
    shared = len(passes)
    alone = [pipeline.encode(each) for each in pictures]
    assert shared < len(passes) - shared
    for one, other in zip(together, alone, strict=True):
        assert (one.boxes, one.resized, one.size) == (other.boxes, other.resized, other.size)
        assert_same(*(tuple(pipeline.decode(each, words(6), range(6))) for each in (one, other)))


@pytest.mark.parametrize("precision, least", [("float16", 0.999), ("bfloat16", 0.98)])
def test_half_precision_on_real_features(precision, least):
    tower, image = load_tower(), load_image(ROOT / "demo/scene.png").array
    text = TextEncoder(tower, "name")(["bus", "owl", "strawberry", "tree", "grass", "sky"])
    settings = dict(short_side=128, window=64, stride=32)
    labels = [
        pipeline.decode(pipeline.encode(image), text, range(6)).labels
        for pipeline in (
            Pipeline(tower, dict(type="MaskCLIP"), Protocol(**settings, precision=name))
            for name in ("float32", precision)
        )
    ]
    assert (labels[0] == labels[1]).float().mean() > least


def test_compiled(vit, picture):
    pipeline = Pipeline(vit, dict(type="NACLIP"), Protocol(short_side=90, window=48, stride=24))
    plain = tuple(pipeline.decode(pipeline.encode(picture), words(6), range(6)))
    assert pipeline.compile(backend="eager") is pipeline
    assert_same(plain, tuple(pipeline.decode(pipeline.encode(picture), words(6), range(6))))


def test_out_of_memory_halves_the_batch_once(vit, picture):
    settings = dict(short_side=90, window=48, stride=24, window_batch=8)
    pipeline = Pipeline(vit, dict(type="Vanilla"), Protocol(**settings))
    right, features = pipeline.encode(picture), pipeline.features

    def short_of_memory(most):
        def run(views):
            if len(views) > most:
                raise torch.OutOfMemoryError("out of memory")
            return features(views)

        return run

    pipeline.features = short_of_memory(4)
    with pytest.warns(UserWarning, match="out of memory: from here on 4 windows"):
        found = pipeline.encode(picture)
    assert pipeline.protocol == Protocol(**settings)
    pipeline.encode(picture)  # without another attempt, and without another warning
    assert_same(*(tuple(pipeline.decode(each, words(6), range(6))) for each in (found, right)))
    pipeline.features = short_of_memory(1)
    with pytest.warns(UserWarning), pytest.raises(torch.OutOfMemoryError):
        pipeline.encode(picture)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (3, 5), (17, 16)])
@pytest.mark.parametrize("short_side", [None, 40])
@pytest.mark.parametrize("method", ["Vanilla", "ClearCLIP", "MaskCLIP"])
def test_tiny_pictures(size, short_side, method, vit):
    picture = np.full((*size, 3), 200, np.uint8)
    labels, p, _ = run(vit, picture, words(3), method=method, short_side=short_side, window=32, stride=16)
    assert labels.shape == size and p.isfinite().all()


# --- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"short_side": 60}, {"short_side": 170}, {"short_side": None}, {"short_side": 60, "refine": PAMR_ONCE}],
    ids=["smaller", "larger", "native", "refined"],
)
def test_a_tiny_budget_changes_nothing(settings, vit, picture):
    large = np.ascontiguousarray(picture.repeat(2, 0).repeat(3, 1))  # 180 × 390: one MiB holds a few rows of 16 words
    classes = [0, 0, 0, *range(1, 37)]
    both = [run(vit, large, words(39), classes, window=64, stride=48, memory=m, **settings) for m in (MIB, 2**30)]
    assert_same(*both, differing=1e-3)


def test_thousands_of_words_in_bounded_memory(vit, picture, monkeypatch):
    """The scores of all words at the breakpoints of a tile stay within the budget."""
    from ovseg.argmax import BreakpointMaps

    held = []
    values = BreakpointMaps.values
    monkeypatch.setattr(BreakpointMaps, "values", lambda *args: held.append(values(*args)) or held[-1])
    text = words(3000)
    picture = picture[:48, :64]
    settings = dict(short_side=48, window=32, stride=16)
    labels, p, _ = run(vit, picture, text, memory=MIB, **settings)
    assert 0 < max(each.numel() * 4 for each in held) <= MIB < 3000 * 48 * 64 * 4 / 16
    assert_same((labels, p), run(vit, picture, text, **settings)[:2], 1e-3)


# --- area threshold -------------------------------------------------------------------------------------------------


def area_rule(maps, share, background):
    """SCLIP's: foreground classes with less than a share of the foreground pixels get no pixel at all."""
    first = int(background)
    winners = maps.argmax(0)
    counts = np.bincount(winners.ravel(), minlength=len(maps))
    small = [c for c in range(first, len(maps)) if counts[c] < share * counts[first:].sum()]
    maps = maps.copy()
    maps[small] = -np.inf
    return maps.argmax(0), small


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_area_threshold(share, background, vit, picture):
    pipeline = Pipeline(vit, dict(type="SCLIP"), Protocol(short_side=90, window=None, area_threshold=share))
    encoded, text = pipeline.encode(picture), words(12, seed=4)
    cosine = torch.einsum("behw,te->bthw", F.normalize(encoded.parts[0].features, dim=1), text)
    maps = F.interpolate(cosine, (90, 130), mode="bilinear", align_corners=False)[0].numpy()
    expected, small = area_rule(maps, share, background)
    labels = pipeline.decode(encoded, text, range(12), background).labels.numpy()
    assert small and (labels != maps.argmax(0)).any()  # the case is worth something
    assert (labels != expected).mean() < 1e-3
    assert not np.isin(labels, small).any() or len(small) == 12


# --- refiners and other scorers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", ["resized", "original"])
def test_refined_prediction(vit, picture, seen):
    """Stitched cosines at the picture's size → PAMR with the normalized picture → τ → softmax (NACLIP's order)."""
    protocol = Protocol(short_side=64, window=None, refine=(dict(type="PAMR", steps=2),), refine_image=seen)
    pipeline = Pipeline(vit, dict(type="NACLIP"), protocol)
    encoded, text = pipeline.encode(picture), words(4)
    cosine = torch.einsum("behw,te->bthw", F.normalize(encoded.parts[0].features, dim=1), text)
    maps = F.interpolate(cosine, encoded.resized, mode="bilinear", align_corners=False)
    maps = F.interpolate(maps, (90, 130), mode="bilinear", align_corners=False)
    shown = picture if seen == "original" else resize(picture, protocol)
    image = vit.normalize(torch.from_numpy(shown).permute(2, 0, 1)[None] / 255)
    image = F.interpolate(image, (90, 130), mode="bilinear", align_corners=False)
    p = (40 * PAMR(2)(image, maps)).softmax(1)[0]
    labels, scores, _ = pipeline.decode(encoded, text, range(4))
    assert (labels != p.argmax(0)).float().mean() < 1e-3
    torch.testing.assert_close(scores, p.amax(0), atol=1e-4, rtol=1e-4)


def test_a_scorer_that_looks_at_all_words(vit, picture):
    """Thresholds of 0 drop and smooth nothing; without smoothing the scores stay cosines."""
    scorers = (None, DenoisedScore(prompt_denoising=0.0))
    assert_same(*(run(vit, picture, words(5), scorer=scorer, short_side=64, window=None) for scorer in scorers))
    keyed, settings = dict(type="MaskCLIP", keys=True), dict(short_side=64, window=48, stride=24)
    p = run(vit, picture, words(5), method=keyed, scorer=DenoisedScore(key_smoothing=0.0), **settings)[1]
    assert p.isfinite().all() and p.min() >= 0.2 - 1e-5 and p.max() <= 1 + 1e-5
