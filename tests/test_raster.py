"""Rasters by window: the pixels of ``load_image``, the labels of the whole picture, within a budget, resumed."""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ovseg import cli
from ovseg.apis.base_predictor import ModelWords
from ovseg.apis.predictor import Predictor
from ovseg.pictures.images import load_image
from ovseg.pictures.pixels import ImageError
from ovseg.predict.memory import as_text, read_bytes, resident
from ovseg.predict.pipeline import Pipeline
from ovseg.predict.plan import Costs, Grid, make_plan
from ovseg.predict.protocol import Protocol
from ovseg.predict.segment import EncodedWords, Segmenter
from ovseg.predict.strips import Strips
from ovseg.results.provenance import Provenance
from ovseg.text.vocabulary import Vocabulary

rasterio = pytest.importorskip("rasterio", reason="an extra: pip install rasterio")

from ovseg.apis.raster import merged  # noqa: E402
from ovseg.pictures.raster import Raster  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
PLENTY = 2**40


def scene(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 RGB with structure at several scales."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 10), -(-width // 10), 3)).repeat(10, 0).repeat(10, 1)
    return np.clip(coarse[:height, :width] + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def unit(count: int, width: int = 48, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def write(path, array: np.ndarray, **profile):
    """(H, W, C) as a TIFF of deflated tiles of 64."""
    tiles = dict(tiled=True, blockxsize=64, blockysize=64, compress="deflate", interleave="pixel")
    settings = dict(driver="GTiff") | tiles | profile
    height, width, count = array.shape
    with rasterio.open(path, "w", height=height, width=width, count=count, dtype=array.dtype.name, **settings) as file:
        file.write(np.moveaxis(array, 2, 0))
    return path


def pipeline_of(vit, **settings) -> Pipeline:
    return Pipeline(vit, dict(type="MaskCLIP"), Protocol(**dict(short_side=None, window=64, stride=48) | settings))


def predictor_of(vit, words: int = 9, vocabulary: Vocabulary | None = None, **settings) -> Predictor:
    """With words that are given by their embeddings."""
    predictor = Predictor(Segmenter(pipeline_of(vit, **settings), cache=False))
    return give_words(predictor, vocabulary or Vocabulary.parse([f"word {i}" for i in range(words)]))


def give_words(predictor: Predictor, vocabulary: Vocabulary) -> Predictor:
    """Words with random embeddings."""
    predictor._words = ModelWords(vocabulary, EncodedWords(vocabulary, unit(len(vocabulary.prompts))))
    return predictor


def labels_of(pipeline: Pipeline, path, text, classes, budget: int = PLENTY, threshold: float = 0.0):
    with Raster(path) as raster:
        strips = Strips(pipeline, raster, text, classes, budget)
        parts = list(strips.run(threshold, 254, 255))
    assert [top for top, _ in parts] == np.cumsum([0, *(len(part) for _, part in parts[:-1])]).tolist()
    return np.concatenate([part for _, part in parts]), strips.plan


# --- pixels ----------------------------------------------------------------------------------------------------------


def pillow_files() -> dict:
    rgb, rng = scene(90, 130), np.random.default_rng(5)
    rgba = np.dstack([rgb, rng.integers(0, 256, rgb.shape[:2], dtype=np.uint8)])
    return {
        "rgb.tif": Image.fromarray(rgb),
        "rgb.png": Image.fromarray(rgb),
        "rgb.jp2": Image.fromarray(rgb),
        "gray.tif": Image.fromarray(rgb[..., 0]),
        "bits.tif": Image.fromarray(rgb[..., 0] > 99),
        "bits.png": Image.fromarray(rgb[..., 0] > 99),
        "palette.tif": Image.fromarray(rgb).quantize(20),
        "palette.png": Image.fromarray(rgb).quantize(20),
        "deep.tif": Image.fromarray(rng.integers(0, 65536, (90, 130), dtype=np.uint16)),
        "deep.png": Image.fromarray(rng.integers(0, 65536, (90, 130), dtype=np.uint16)),
        "rgba.tif": Image.fromarray(rgba),
        "rgba.png": Image.fromarray(rgba),
        "la.png": Image.fromarray(rgba).convert("LA"),
        "la.tif": Image.fromarray(rgba).convert("LA"),
    }


@pytest.mark.parametrize("name", pillow_files())
def test_the_pixels_are_those_of_load_image(tmp_path, name):
    pillow_files()[name].save(tmp_path / name)
    with Raster(tmp_path / name) as raster:
        expected = load_image(tmp_path / name).array
        assert np.array_equal(raster.rows(0, raster.height), expected)
        assert np.array_equal(raster.rows(31, 77), expected[31:77]) and not raster.unread
        small, rows, columns = raster.small(40)
        assert small.shape == (28, 40, 3) and np.array_equal(small, expected[rows][:, columns])


def test_a_fourth_band_that_is_no_transparency_is_left_out(tmp_path):
    picture = np.dstack([scene(70, 90), scene(70, 90, 1)[..., 0]])
    path = write(tmp_path / "near.tif", picture, photometric="rgb", alpha="no")
    assert np.array_equal(Raster(path).rows(0, 70), picture[..., :3])


@pytest.mark.parametrize(
    "array, parts",
    [
        (np.zeros((20, 20, 5), np.uint8), ["5 bands", "--bands 3,2,1", "gdal_translate -b"]),
        (np.zeros((20, 20, 3), np.uint32), ["uint32", "--range", "-ot Byte"]),
        (np.zeros((20, 20, 1), np.int16), ["int16", "-ot Byte"]),
    ],
)
def test_bands_and_types_that_are_no_picture(tmp_path, array, parts):
    with pytest.raises(ImageError) as caught:
        Raster(write(tmp_path / "odd.tif", array))
    assert all(part in str(caught.value) for part in parts)


def test_files_that_are_no_raster(tmp_path):
    (tmp_path / "notes.tif").write_text("not a picture")
    (tmp_path / "half.tif").write_bytes(b"II*\0 and then nothing")
    Image.fromarray(scene(20, 20)).save(tmp_path / "turned.jpg", exif=exif_turned())
    for name, part in (
        ("notes.tif", "no TIFF, PNG"),
        ("half.tif", "damaged"),
        ("absent.tif", "no file"),
        ("turned.jpg", "turned"),
    ):
        with pytest.raises(ImageError, match=part):
            Raster(tmp_path / name)
    with pytest.raises(ImageError, match="Download"):
        Raster("https://example.org/scan.tif")


def exif_turned() -> Image.Exif:
    (exif := Image.Exif())[0x0112] = 6
    return exif


def test_without_rasterio(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    Image.fromarray(scene(20, 20)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="pip install"):
        Raster(tmp_path / "a.png")


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [7, 100])  # fewer and more than features
@pytest.mark.parametrize("window_batch", [1, 4, 1000])
@pytest.mark.parametrize("window, stride", [(64, 64), (64, 48), (48, 16)])
@pytest.mark.parametrize("size", [(200, 333), (131, 67), (33, 200), (257, 90)])
def test_strips_equal_the_whole_picture(vit, tmp_path, size, window, stride, window_batch, words):
    picture, text = scene(*size), unit(words)
    path = write(tmp_path / "a.tif", picture)
    memory = 2**20 if window_batch == 1 else 2**28  # labels of a strip at once, or in bands
    pipeline = pipeline_of(vit, window=window, stride=stride, window_batch=window_batch, memory=memory)
    found, plan = labels_of(pipeline, path, text, range(words))
    expected = pipeline.decode(pipeline.encode(picture), text, range(words)).labels.numpy()
    assert found.dtype == np.uint8 and (found != expected).mean() <= 1e-4
    assert plan.windows == len(pipeline.encode(picture).boxes)
    assert plan.strips == 1 if window_batch == 1000 else plan.strips > 1 or size[0] <= window


def test_a_view_and_a_padded_method(vit, tmp_path):
    picture, text = scene(150, 170), unit(60)
    path = write(tmp_path / "a.tif", picture)
    for settings in (dict(view=80), dict(window=50, stride=30)):
        pipeline = pipeline_of(vit, window_batch=3, **settings)
        expected = pipeline.decode(pipeline.encode(picture), text, range(60)).labels.numpy()
        assert (labels_of(pipeline, path, text, range(60))[0] != expected).mean() <= 1e-4


def test_synonyms_and_a_threshold(vit, tmp_path):
    picture, classes = scene(150, 170), [0, 0, 1, 2, 2, 3, 4, 5]
    path, text = write(tmp_path / "a.tif", picture), unit(8)
    pipeline = pipeline_of(vit, window_batch=3)
    whole = pipeline.decode(pipeline.encode(picture), text, classes)
    threshold = float(whole.scores.median())
    expected = np.where(whole.below(threshold).numpy(), 254, whole.labels.numpy())
    assert 0.3 < (expected == 254).mean() < 0.7
    assert (labels_of(pipeline, path, text, classes, threshold=threshold)[0] != expected).mean() <= 1e-3


def test_no_window_is_run_twice(vit, tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", scene(200, 150))
    ran, features = [], Pipeline.features
    monkeypatch.setattr(Pipeline, "features", lambda self, views: ran.append(len(views)) or features(self, views))
    _, plan = labels_of(pipeline_of(vit, stride=16, window_batch=3), path, unit(5), range(5))
    assert sum(ran) == plan.windows + 2 and max(ran) <= 3  # two to see what they look like


@pytest.mark.parametrize("seed", range(30))
def test_strips_decide_every_row_once(seed):
    rng = np.random.default_rng(seed)
    height, window = (int(n) for n in rng.integers(1, 300, 2))
    stride, rows = int(rng.integers(1, window + 1)), int(rng.integers(1, 6))
    grid = Grid.of(height, 50, window, stride)
    strips = list(grid.strips(rows))
    assert strips[0].top == 0 and strips[-1].bottom == height and strips[-1].stop == len(grid.tops)
    for strip, after in zip(strips, [*strips[1:], None], strict=True):
        covering = {
            i for i, top in enumerate(grid.tops) if any(top <= y < top + window for y in (strip.top, strip.bottom - 1))
        }
        assert covering <= set(range(strip.first, strip.stop)) and strip.stop - strip.first <= grid.held(rows)
        assert after is None or (after.top == strip.bottom and list(grid.strips(rows, after.top))[0] == after)


# --- the budget ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, size",
    [("2GB", 2 * 10**9), ("800 mb", 8 * 10**8), ("1.5GiB", 3 * 2**29), ("64M", 64 * 10**6), ("123456", 123456)],
)
def test_amounts_of_memory(text, size):
    assert read_bytes(text) == size and read_bytes(size) == size


@pytest.mark.parametrize("text", ["", "much", "2 GBit", "-1GB", "0", "1,5GB", "GB"])
def test_no_amounts_of_memory(text):
    with pytest.raises(ValueError, match="2GB, 800MB, 1.5GiB"):
        read_bytes(text)


def test_amounts_as_text():
    assert [as_text(n) for n in (1, 640 * 10**6, 1_301_000_000)] == ["1 MB", "640 MB", "1.31 GB"]
    assert 2**24 < resident() < 2**40


def test_smaller_budgets_make_smaller_batches_until_none_fits():
    grid = Grid.of(5000, 700, 224, 112)
    costs = Costs(resident=10**8, pixels=10**6, patches=4 * 512 * 196, forward=10**7)
    plans = [make_plan(grid, costs, budget, 64, 2**28) for budget in (2 * 10**9, 6 * 10**8, 3 * 10**8)]
    assert [plan.batch for plan in plans] == sorted({plan.batch for plan in plans}, reverse=True)
    assert all(plan.total <= plan.budget for plan in plans) and plans[0].strips < plans[-1].strips
    assert "already in memory" in str(plans[0]) and plans[0].to_dict()["total"] == plans[0].total
    with pytest.raises(ValueError, match="too small for 700 x 5000 pixels") as caught:
        make_plan(grid, costs, 10**8, 64, 2**28)
    least = read_bytes(str(caught.value).split(" would do")[0].rsplit(": ", 1)[1])
    assert make_plan(grid, costs, least, 64, 2**28).batch == 1


@pytest.mark.parametrize(
    "settings, scorer, part",
    [
        (dict(refine=("PAMR",)), None, "--refine none"),
        (dict(short_side=100), None, "--short-side"),
        (dict(size=(10, 10)), None, "size=None"),
        (dict(window=None), None, "--window"),
        (dict(whole_view=True), None, "whole_view=False"),
        (dict(area_threshold=0.1), None, "area_threshold=0"),
        ({}, dict(type="ForegroundScore"), "ForegroundScore"),
    ],
)
def test_what_needs_the_whole_picture_is_refused(vit, tmp_path, settings, scorer, part):
    path = write(tmp_path / "a.tif", scene(70, 70))
    protocol = Protocol(**dict(short_side=None, window=64, stride=48) | settings)
    pipeline = Pipeline(vit, dict(type="MaskCLIP"), protocol, scorer)
    with pytest.raises(ValueError, match="window by window") as caught:
        Strips(pipeline, Raster(path), unit(3), range(3), PLENTY)
    assert part in str(caught.value)


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_of_a_raster(vit, tmp_path):
    picture, crs = scene(150, 170), "EPSG:32633"
    transform = rasterio.Affine(0.2, 0, 5e5, 0, -0.2, 5e6)
    path = write(tmp_path / "scan.tif", picture, crs=crs, transform=transform)
    predictor = predictor_of(vit)
    run = predictor.raster(path, PLENTY)
    assert "170 x 150 pixels" in str(run.plan)
    made = run.save(tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "scan.json",
        "scan_labels.tif",
        "scan_overlay.png",
    ]
    whole = predictor.set_image(path).predict()
    with rasterio.open(made.paths["labels"]) as file:
        assert (file.crs.to_string(), file.transform, file.nodata) == (crs, transform, 255)
        assert file.colormap(1)[3][:3] == predictor.vocabulary.colors[3]
        assert (file.read(1) != whole.labels).mean() <= 1e-4
    record = json.loads(made.paths["json"].read_text(encoding="utf-8"))
    saved = Provenance.from_dict(record)
    assert not saved.differences(run.provenance) and run.provenance == whole.provenance and saved.picture.hash
    assert record["plan"]["windows"] == run.plan.windows and record["unread"] == []
    assert set(whole.to_dict()) - set(record) == set() and record["format"] == "ovseg-raster"
    assert made.areas == pytest.approx(whole.areas, abs=1e-4) and made.unread is None
    assert sum(item["pixels"] for item in record["classes"]) == 150 * 170
    assert Image.open(made.paths["overlay"]).width > 170


def test_many_classes_and_words_of_the_background(vit, tmp_path):
    path = write(tmp_path / "scan.tif", scene(100, 100))
    predictor = predictor_of(vit, 300)
    threshold = float(np.median(predictor.set_image(path).predict().scores))
    background = dict(kind="threshold", threshold=threshold, words=["wall"])
    give_words(predictor, Vocabulary.parse([f"word {i}" for i in range(300)]).with_background(background))
    made = predictor.raster(path, PLENTY).save(tmp_path)
    expected = predictor.set_image(path).predict().labels
    with rasterio.open(made.paths["labels"]) as file:
        assert file.dtypes == ("uint16",) and file.nodata == 65535
        assert (file.read(1) != expected).mean() <= 1e-3 and 0 < (expected == 0).mean() < 1


class Stop(Exception):
    pass


def stop_after(count: int):
    """A ``report`` that raises once so many windows are done."""
    total = 0

    def report(windows):
        nonlocal total
        total += windows
        if total > count:
            raise Stop

    return report


def test_going_on_after_an_interruption(vit, tmp_path):
    path = write(tmp_path / "scan.tif", scene(300, 170))
    predictor = predictor_of(vit, window_batch=4)
    once = predictor.raster(path, PLENTY).save(tmp_path / "once").paths["labels"]
    with pytest.raises(Stop):
        predictor.raster(path, PLENTY).save(tmp_path / "twice", report=stop_after(13))
    assert sorted(file.name for file in (tmp_path / "twice").iterdir()) == ["scan_labels.part", "scan_labels.part.json"]
    reported, run = [], predictor_of(vit, window_batch=3).raster(path, PLENTY)
    again = run.save(tmp_path / "twice", resume=True, report=reported.append).paths["labels"]
    assert reported[0] > 4 and sum(reported) == run.plan.windows  # the first tells of what need not be run again
    with rasterio.open(once) as first, rasterio.open(again) as second:
        assert np.array_equal(first.read(1), second.read(1))


@pytest.mark.parametrize("changed", ["nothing, but not asked to", "words", "file"])
def test_starting_anew_where_conditions_differ(vit, tmp_path, changed):
    path = write(tmp_path / "scan.tif", scene(300, 170))
    with pytest.raises(Stop):
        predictor_of(vit, window_batch=4).raster(path, PLENTY).save(tmp_path, report=stop_after(13))
    if changed == "file":
        write(path, scene(300, 170, seed=1))
    reported, run = [], predictor_of(vit, 8 if changed == "words" else 9, window_batch=4).raster(path, PLENTY)
    run.save(tmp_path, resume=changed in ("words", "file"), report=reported.append)
    assert max(reported) <= 4 and sum(reported) == run.plan.windows


def corrupt(path, row: int, column: int):
    """Overwrite the compressed bytes of a tile of 64."""
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1))
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 40)


def test_broken_tiles_are_left_unlabeled(vit, tmp_path):
    picture = scene(200, 250)
    path = write(tmp_path / "scan.tif", picture)
    corrupt(path, 1, 2)
    corrupt(path, 2, 2)
    predictor = predictor_of(vit, window_batch=4)
    made = predictor.raster(path, PLENTY).save(tmp_path)
    assert "rows 64 to 191, columns 128 to 191" in made.unread and str(path) in made.unread
    picture[64:192, 128:192] = 0
    expected = predictor.set_image(picture).predict().labels
    expected[64:192, 128:192] = 255
    with rasterio.open(made.paths["labels"]) as file:
        assert (file.read(1) != expected).mean() <= 1e-4
    record = json.loads(made.paths["json"].read_text(encoding="utf-8"))
    assert record["unread"] == [{"rows": [64, 192], "columns": [128, 192]}]
    assert record["unlabeled"] == {"id": 255, "pixels": 128 * 64}


def test_blocks_are_joined_downwards():
    boxes = [(0, 0, 2, 5), (2, 0, 4, 5), (2, 5, 4, 9), (6, 0, 7, 5)]
    assert merged(boxes) == [(0, 0, 4, 5), (2, 5, 4, 9), (6, 0, 7, 5)]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ovseg(capsys, monkeypatch, tmp_path):
    """The command in this process, in an empty folder: ``ovseg("predict", …)`` → exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        return (caught.value.code or 0, *capsys.readouterr())

    return run


QUICK = ("-c", "cat, dog, grass", "--templates", "name", "--refine", "none", "--no-progress", "--memory", "100GB")


def test_the_command(ovseg, tmp_path):
    (folder := tmp_path / "in").mkdir()
    write(folder / "good.tif", scene(100, 130))
    corrupt(write(folder / "torn.tif", scene(100, 130)), 0, 1)
    (folder / "none.tif").write_text("not a picture")
    code, out, err = ovseg("predict", folder, *QUICK)
    assert code == 1 and "2 picture(s) segmented" in out and "130 x 100 pixels" in err and "Traceback" not in err
    told = err[err.index("2 of 3 picture(s) could not be read") :].splitlines()
    assert "none.tif" in told[1] and "torn.tif: damaged at rows 0 to 63, columns 64 to 127" in told[2]
    assert {path.name for path in (tmp_path / "out").glob("*.tif")} == {"good_labels.tif", "torn_labels.tif"}
    written = (tmp_path / "out" / "good_labels.tif").stat().st_mtime_ns
    assert ovseg("predict", folder / "good.tif", "--resume", *QUICK)[0] == 0
    assert (tmp_path / "out" / "good_labels.tif").stat().st_mtime_ns == written
    code, out, _ = ovseg("predict", folder / "good.tif", "--json", *QUICK)
    assert code == 0 and sum(json.loads(out)["areas"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (("--memory", "lots"), ["2GB, 800MB, 1.5GiB", "'lots'"]),
        (("--memory", "1MB", "--refine", "none"), ["1 MB is too small", "would do"]),
        (("--memory", "100GB", "--short-side", "300"), ["--short-side"]),
        (("--memory", "100GB"), ["PAMR", "--refine none"]),
    ],
)
def test_a_mistake_costs_one_paragraph(ovseg, tmp_path, arguments, parts):
    Image.fromarray(scene(100, 130)).save(tmp_path / "a.png")
    code, _, err = ovseg("predict", "a.png", "-c", "cat, dog", "--templates", "name", "--no-progress", *arguments)
    lines = [line for line in err.splitlines() if line and "is the embedded demo model:" not in line]
    assert code == 2 and len(lines) == 1 and all(part in lines[0] for part in parts), err


def test_too_large_pictures_are_told_of_it(monkeypatch):
    from ovseg.pictures import pixels

    monkeypatch.setattr(pixels, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="--memory"):
        load_image(scene(20, 20))
