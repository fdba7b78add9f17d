"""What files mean: ranges, inversion, transparency, nodata and masks, alike read whole and by window."""

import json
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from ovseg import cli
from ovseg.pictures import levels
from ovseg.pictures.images import load_image
from ovseg.pictures.pixels import ImageError, turned
from ovseg.pictures.tags import read_tags

rasterio = pytest.importorskip("rasterio", reason="an extra: pip install rasterio")

from ovseg.pictures.raster import Raster  # noqa: E402

from .test_raster import PLENTY, give_words, predictor_of, scene  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
HEIGHT, WIDTH = 70, 90


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(levels, "_warned", set())


def tiff(path, *bands, photometric=1, planar=1, bits=None, form=1, extra=(), tags=()):
    """An uncompressed TIFF, little-endian, one strip (or one for each band), written byte by byte.

    Args:
        bands: (H, W) arrays of one type.
        tags: more tags (number, type, values): 2 for text, 3 for shorts.
    """
    height, width = bands[0].shape
    strips = [band.tobytes() for band in bands] if planar == 2 else [np.stack(bands, 2).tobytes()]
    count, bits = len(bands), bits or 8 * bands[0].dtype.itemsize
    entries = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * count), 259: (3, [1]), 262: (3, [photometric])}
    entries |= {277: (3, [count]), 278: (4, [height]), 284: (3, [planar]), 339: (3, [form] * count)}
    entries |= {338: (3, list(extra))} if extra else {}
    entries |= {number: (kind, values) for number, kind, values in tags}
    starts = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries |= {273: (4, starts), 279: (4, [len(strip) for strip in strips])}
    at = 8 + sum(map(len, strips))
    far, rows = b"", b""
    for number, (kind, values) in sorted(entries.items()):
        data = values.encode() + b"\0" if kind == 2 else np.array(values, {3: "<u2", 4: "<u4"}[kind]).tobytes()
        length = len(data) if kind == 2 else len(values)
        if len(data) > 4:
            where = at + 2 + 12 * len(entries) + 4 + len(far)
            far, data = far + data + b"\0" * (len(data) % 2), where.to_bytes(4, "little")
        rows += number.to_bytes(2, "little") + kind.to_bytes(2, "little") + length.to_bytes(4, "little")
        rows += data.ljust(4, b"\0")
    table = len(entries).to_bytes(2, "little") + rows + b"\0" * 4
    path.write_bytes(b"II*\0" + at.to_bytes(4, "little") + b"".join(strips) + table + far)
    return path


def gdal(path, *bands, driver="GTiff", colors=None, mask=None, **profile):
    height, width = bands[0].shape
    shape = dict(height=height, width=width, count=len(bands), dtype=bands[0].dtype.name)
    with rasterio.open(path, "w", driver=driver, **shape, **profile) as file:
        file.write(np.stack(bands))
        if colors:
            file.colorinterp = [rasterio.enums.ColorInterp[color] for color in colors]
        if mask is not None:
            file.write_mask(mask)
    return path


def both_ways(path, **settings):
    """Pixels and valid ones, after asserting that both ways give them."""
    whole = load_image(path, **settings)
    with Raster(path, settings.get("range"), settings.get("bands")) as raster:
        pixels, invalid = raster.read(0, raster.height)
        middle = raster.read(20, 51)
    assert np.array_equal(whole.array, pixels) and np.array_equal(middle[0], pixels[20:51])
    valid = np.ones(invalid.shape, bool) if whole.valid is None else whole.valid
    assert np.array_equal(valid, ~invalid) and np.array_equal(middle[1], invalid[20:51])
    return pixels, valid


def rgb() -> np.ndarray:
    return scene(HEIGHT, WIDTH)


def parts(array: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(array[..., i]) for i in range(array.shape[2])]


def left_half() -> np.ndarray:
    """False in the left half."""
    return np.broadcast_to(np.arange(WIDTH) >= WIDTH // 2, (HEIGHT, WIDTH))


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bands_one_after_the_other(tmp_path, planar, dtype):
    values = rgb().astype(dtype) * dtype(257 if dtype == np.uint16 else 1)
    pixels, valid = both_ways(tiff(tmp_path / "a.tif", *parts(values), photometric=2, planar=planar))
    assert np.array_equal(pixels, rgb()) and valid.all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_the_smallest_value(tmp_path, dtype):
    most = np.iinfo(dtype).max
    gray = rgb()[..., 0]
    path = tiff(tmp_path / "a.tif", (most - gray.astype(dtype) * dtype(most // 255)).astype(dtype), photometric=0)
    assert np.array_equal(both_ways(path)[0][..., 1], gray)


def test_white_is_the_smallest_of_twelve_bits(tmp_path):
    gray = rgb()[..., 0]
    values = (4095 - np.round(gray / 255 * 4095)).astype(np.uint16)
    path = tiff(tmp_path / "a.tif", values, photometric=0, tags=[(341, 3, [4095])])
    assert np.array_equal(both_ways(path)[0][..., 0], gray)


NOTES = {
    "largest sample value": [(341, 3, [4095])],
    "maximum": [(281, 3, [4095])],
    "ImageJ": [(270, 2, "ImageJ=1.53t\nunit=micron\nmin=0.0\nmax=4095.0\n")],
    "OME": [(270, 2, '<?xml version="1.0"?><OME><Pixels SignificantBits="12" Type="uint16"/></OME>')],
    "GDAL": [(42112, 2, '<GDALMetadata><Item name="NBITS" sample="0">12</Item></GDALMetadata>')],
}


@pytest.mark.parametrize("note", NOTES)
@pytest.mark.parametrize("bands", [1, 3])
def test_the_file_says_that_it_has_twelve_bits(tmp_path, note, bands):
    values = np.round(rgb() / 255 * 4095).astype(np.uint16)
    tags = [(tag, kind, value * bands if kind == 3 else value) for tag, kind, value in NOTES[note]]
    path = tiff(tmp_path / "a.tif", *parts(values)[:bands], photometric=2 if bands == 3 else 1, tags=tags)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        pixels, _ = both_ways(path)
    assert np.array_equal(pixels, rgb() if bands == 3 else rgb()[..., [0, 0, 0]])


@pytest.mark.parametrize("bits", [10, 11, 12, 14, 15])
@pytest.mark.parametrize("driver, suffix", [("GTiff", "tif"), ("JP2OpenJPEG", "jp2")])
@pytest.mark.parametrize("bands", [1, 3])
def test_stored_in_fewer_bits(tmp_path, bits, driver, suffix, bands):
    values = np.round(rgb() / 255 * (2**bits - 1)).astype(np.uint16)
    lossless = dict(QUALITY="100", REVERSIBLE="YES") if suffix == "jp2" else dict(compress="deflate")
    path = gdal(tmp_path / f"a.{suffix}", *parts(values)[:bands], driver=driver, nbits=bits, **lossless)
    assert np.array_equal(both_ways(path)[0], rgb() if bands == 3 else rgb()[..., [0, 0, 0]])


@pytest.mark.parametrize("suffix", ["jp2", "j2k"])
def test_jpeg_2000_of_gdal_without_named_colors(tmp_path, suffix):
    path = gdal(tmp_path / f"a.{suffix}", *parts(rgb()), driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    assert np.array_equal(both_ways(path)[0], rgb())


def test_png_of_sixteen_bits_and_colors(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    path = gdal(tmp_path / "a.png", *parts(values), driver="PNG")
    assert np.array_equal(both_ways(path)[0], np.round(values / 257).astype(np.uint8))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 3])
def test_a_range_makes_any_type_readable(tmp_path, dtype, bands):
    low, high = (-50, 77) if dtype in ("int8", "int16", "int32", "float32", "float64") else (20, 147)
    values = rgb().astype(np.float64) / 255 * 400 - 90
    info = np.finfo(dtype) if dtype.startswith("f") else np.iinfo(dtype)
    values = np.round(values.clip(max(info.min, -1e9), min(info.max, 1e9))).astype(dtype)
    expected = np.floor(((values.astype(float) - low) / (high - low)).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    path = gdal(tmp_path / "a.tif", *parts(values)[:bands])
    pixels, _ = both_ways(path, range=(low, high))
    assert np.abs(pixels.astype(int) - expected[..., : bands if bands == 3 else 1]).max() <= (dtype == "float32")
    array = load_image(values, range=(low, high)).array
    assert np.abs(array.astype(int) - expected).max() <= (dtype == "float32")


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32"])
def test_types_of_unknown_range_are_refused_in_a_sentence(tmp_path, dtype):
    path = gdal(tmp_path / "a.tif", *parts(rgb().astype(dtype)))
    for read in (load_image, Raster):
        with pytest.raises(ImageError, match="--range LOW,HIGH") as caught:
            read(path)
        assert dtype in str(caught.value) and "\n" not in str(caught.value)


def test_floats(tmp_path):
    path = gdal(tmp_path / "a.tif", *parts((rgb() / 255).astype(np.float32)))
    assert np.array_equal(both_ways(path)[0], rgb())
    path = gdal(tmp_path / "b.tif", *parts(rgb().astype(np.float32)))
    for read in (load_image, lambda path: Raster(path).look()):
        with pytest.raises(ImageError, match="floats from .* --range"):
            read(path)


@pytest.mark.parametrize("most, says", [(255, "0,255"), (1000, "0,1023"), (4080, "0,4095"), (30000, "0,32767")])
def test_dark_values_are_noticed_once(tmp_path, most, says):
    values = np.round(rgb() / 255 * most).astype(np.uint16)
    path = tiff(tmp_path / "a.tif", *parts(values), photometric=2)
    for read in (load_image, lambda _: load_image(values), lambda path: Raster(path).look()):
        levels._warned.clear()
        with pytest.warns(UserWarning, match=f"--range {says}"):
            read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(path)
        load_image(path, range=(0, most))


def test_dark_floats_are_noticed():
    with pytest.warns(UserWarning, match=r"range=\(0, 0.0625\)"):
        load_image(rgb() / 255 * 4096 / 65536)


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint16), np.full((4, 4), 65535, np.uint16), np.eye(4) / 10])
def test_nothing_is_said_of_other_values(array):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(array)


@pytest.mark.parametrize("limits", [(5, 5), (9, 1), (1,), "0,4095", 7, (0, float("nan"))])
def test_no_ranges(limits):
    with pytest.raises(ValueError, match="such as 0,4095"):
        load_image(rgb(), range=limits)


# --- bands -----------------------------------------------------------------------------------------------------------


def test_bands_are_chosen(tmp_path):
    many = np.dstack([rgb(), scene(HEIGHT, WIDTH, 1), scene(HEIGHT, WIDTH, 2)])
    path = gdal(tmp_path / "a.tif", *parts(many))
    for read in (load_image, Raster):
        with pytest.raises(ImageError, match="9 bands .* --bands"):
            read(path)
    for bands in ((4, 3, 2), (9, 9, 1), (7,)):
        expected = many[..., [band - 1 for band in (bands if len(bands) == 3 else bands * 3)]]
        assert np.array_equal(both_ways(path, bands=bands)[0], expected)
        assert np.array_equal(load_image(many, bands=bands).array, expected)
    for read in (load_image, lambda path, bands: Raster(path, bands=bands)):
        with pytest.raises(ImageError, match="has 9 bands"):
            read(path, bands=(1, 2, 10))
    for bands in ((1, 2), (0, 1, 2), "123", (1.5,)):
        with pytest.raises(ValueError, match="4,3,2"):
            load_image(path, bands=bands)


# --- no data ---------------------------------------------------------------------------------------------------------


def test_a_nodata_value_is_one_of_all_bands(tmp_path):
    values = rgb().clip(1)
    values[:, : WIDTH // 2] = 0
    values[5:9, 60:70, 0] = 0  # black in one band alone
    pixels, valid = both_ways(gdal(tmp_path / "a.tif", *parts(values), nodata=0))
    assert np.array_equal(pixels, values) and np.array_equal(valid, left_half())


@pytest.mark.parametrize("nodata, dtype", [(-9999, "int16"), (65535, "uint16"), (0, "uint16"), (255, "uint8")])
def test_nodata_of_other_types(tmp_path, nodata, dtype):
    values = np.where(left_half(), rgb()[..., 0].astype(dtype) % 200 + 20, nodata).astype(dtype)
    assert np.array_equal(both_ways(gdal(tmp_path / "a.tif", values, nodata=nodata), range=(0, 250))[1], left_half())


@pytest.mark.parametrize("nodata", [np.nan, -9999.0, float(np.finfo(np.float32).min)])
def test_nodata_of_floats(tmp_path, nodata):
    values = np.where(left_half()[..., None], rgb() / 255, nodata).astype(np.float32)
    values[3, 80, 1] = np.nan  # not a number is no data, whatever the file says
    expected = left_half().copy()
    expected[3, 80] = False
    pixels, valid = both_ways(gdal(tmp_path / "a.tif", *parts(values), nodata=nodata))
    assert np.array_equal(valid, expected) and np.array_equal(pixels[valid], rgb()[valid])


def test_a_nodata_value_that_the_type_cannot_hold(tmp_path):
    path = tiff(tmp_path / "a.tif", *parts(rgb()), photometric=2, tags=[(42113, 2, "-9999")])
    assert read_tags(path).nodata == -9999 and both_ways(path)[1].all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("associated", [False, True])
@pytest.mark.parametrize("gray", [False, True])
def test_alpha_of_a_tiff(tmp_path, dtype, associated, gray):
    most = np.iinfo(dtype).max
    colors = (rgb()[..., :1] if gray else rgb()).astype(dtype) * np.dtype(dtype).type(most // 255)
    alpha = np.where(left_half(), most, 0).astype(dtype)
    alpha[10:30, 60:80] = round(0.6 * most)
    share = alpha[..., None] / most
    stored = np.round(colors * share).astype(dtype) if associated else colors
    path = tmp_path / "a.tif"
    tiff(path, *parts(stored), alpha, photometric=1 if gray else 2, extra=[1 if associated else 2])
    pixels, valid = both_ways(path)
    assert np.array_equal(valid, left_half())
    expected = (colors * share + most * (1 - share)) * 255 / most
    assert np.abs(pixels - expected).max() <= 2.5 and np.array_equal(
        pixels[valid & (alpha == most)], rgb()[valid & (alpha == most)][:, [0, 0, 0] if gray else [0, 1, 2]]
    )


def test_alpha_of_jpeg_2000(tmp_path):
    alpha = np.where(left_half(), 255, 0).astype(np.uint8)
    colors = ["red", "green", "blue", "alpha"]
    options = dict(driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    pixels, valid = both_ways(gdal(tmp_path / "a.jp2", *parts(rgb()), alpha, colors=colors, **options))
    assert np.array_equal(valid, left_half()) and np.array_equal(pixels[valid], rgb()[valid])


@pytest.mark.parametrize("kind", ["RGBA", "LA", "key", "palette"])
def test_transparency_of_a_png_is_white(tmp_path, kind):
    alpha = np.where(left_half(), 255, 0).astype(np.uint8)
    image, options = Image.fromarray(np.dstack([rgb(), alpha])), {}
    if kind == "LA":
        image = image.convert("LA")
    elif kind == "key":
        image, options = (
            Image.fromarray(np.where(left_half()[..., None], rgb().clip(1), 0)),
            {"transparency": (0, 0, 0)},
        )
    elif kind == "palette":
        image, options = image.convert("RGB").quantize(16), {"transparency": 3}
    image.save(tmp_path / "a.png", **options)
    pixels, valid = both_ways(tmp_path / "a.png")
    assert valid.all() and (kind == "palette" or (pixels[:, : WIDTH // 2] == 255).all())


@pytest.mark.parametrize("suffix, inside", [("tif", True), ("tif", False), ("png", False), ("jpg", True)])
def test_a_mask_in_the_file_or_beside_it(tmp_path, inside, suffix):
    mask = np.where(left_half(), 255, 0).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    if suffix == "tif":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=inside):
            gdal(path, *parts(rgb()), mask=mask, compress="deflate")
    else:
        Image.fromarray(rgb()).save(path, **({"quality": 95} if suffix == "jpg" else {}))
        with rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    assert (tmp_path / f"a.{suffix}.msk").exists() == (not inside)
    pixels, valid = both_ways(path)
    assert np.array_equal(valid, left_half()) and (suffix == "jpg" or np.array_equal(pixels, rgb()))


def test_nodata_follows_the_orientation(tmp_path):
    values = np.where(left_half()[..., None], rgb().clip(1), 0)
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.tif"
        tiff(path, *parts(values), photometric=2, tags=[(42113, 2, "0"), (274, 3, [orientation])])
        loaded = load_image(path)
        assert np.array_equal(loaded.array, turned(values, orientation))
        assert np.array_equal(loaded.valid, turned(left_half(), orientation))


def test_turned_is_what_pillow_makes_of_it():
    from PIL import ImageOps

    for orientation in range(1, 9):
        image = Image.fromarray(rgb())
        image.getexif()[0x0112] = orientation
        assert np.array_equal(turned(rgb(), orientation), np.asarray(ImageOps.exif_transpose(image)))


# --- results ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def half_empty(tmp_path):
    """A raster whose left half holds no data."""
    return gdal(
        tmp_path / "scan.tif", *parts(np.where(left_half()[..., None], scene(HEIGHT, WIDTH).clip(1), 0)), nodata=0
    )


@pytest.mark.parametrize("words", [9, 300])
def test_no_data_is_unlabeled_in_results(vit, tmp_path, half_empty, words):
    predictor = predictor_of(vit, words)
    whole = predictor.set_image(half_empty).predict()
    none = 255 if words == 9 else 65535
    assert (whole.labels[~left_half()] == none).all() and (whole.labels[left_half()] != none).all()
    assert (whole.scores[~left_half()] == 0).all() and (whole.scores[left_half()] > 0).all()
    assert sum(whole.areas.values()) == pytest.approx(1)
    by_window = predictor.raster(half_empty, PLENTY).save(tmp_path / "out")
    with rasterio.open(by_window.paths["labels"]) as file:
        labels = file.read(1)
        assert np.array_equal(labels == none, ~left_half()) and (labels != whole.labels).mean() <= 1e-4
    assert by_window.areas == pytest.approx(whole.areas, abs=1e-3)
    record = json.loads(by_window.paths["json"].read_text(encoding="utf-8"))
    told = whole.to_dict()
    assert record["invalid"] == {"pixels": HEIGHT * (WIDTH // 2)} and told["invalid"]["pixels"] == HEIGHT * (WIDTH // 2)
    for made in (record, told):
        assert sum(item["fraction"] for item in made["classes"]) == pytest.approx(1, abs=1e-4)
        assert made["unlabeled"] == {"id": none, "pixels": HEIGHT * (WIDTH // 2)}


def test_saved_and_loaded_with_its_invalid_pixels(vit, tmp_path, half_empty):
    from ovseg.results.result import Result

    result = predictor_of(vit).set_image(half_empty).predict()
    result.save(tmp_path / "out", formats=("labels", "scores", "json"))
    loaded = Result.load(tmp_path / "out" / "scan.json")
    assert np.array_equal(loaded.valid, left_half()) and loaded.areas == result.areas
    raised = loaded.rethreshold(float(np.median(result.scores[left_half()])))
    assert 0.3 < sum(raised.areas.values()) < 0.7 and (raised.labels[~left_half()] == 255).all()


def test_a_background_does_not_take_what_holds_no_data(vit, half_empty):
    predictor = predictor_of(vit)
    background = dict(kind="threshold", threshold=1.0, words=["wall"])
    give_words(predictor, predictor.vocabulary.with_background(background))
    labels = predictor.set_image(half_empty).predict().labels
    assert (labels[left_half()] == 0).all() and (labels[~left_half()] == 255).all()


def test_the_overlay_leaves_it_untouched(vit, half_empty):
    result = predictor_of(vit).set_image(half_empty).predict()
    drawn = np.asarray(result.plot(legend=False))
    assert np.array_equal(drawn[~left_half()], result.image[~left_half()])
    assert not np.array_equal(drawn[left_half()], result.image[left_half()])


def test_resumed_runs_count_the_same_pixels(vit, tmp_path):
    from .test_raster import Stop, stop_after

    values = scene(300, 90).clip(1)
    values[:, :33] = 0
    path = gdal(tmp_path / "scan.tif", *parts(values), nodata=0, compress="deflate")
    with pytest.raises(Stop):
        predictor_of(vit, window_batch=4).raster(path, PLENTY).save(tmp_path, report=stop_after(5))
    made = predictor_of(vit, window_batch=4).raster(path, PLENTY).save(tmp_path, resume=True)
    assert json.loads(made.paths["json"].read_text())["invalid"] == {"pixels": 300 * 33}
    assert sum(made.areas.values()) == pytest.approx(1)


# --- without rasterio ------------------------------------------------------------------------------------------------


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)


def test_what_pillow_reads_rightly(tmp_path, without):
    gray = rgb()[..., 0]
    path = tiff(tmp_path / "white.tif", 65535 - gray.astype(np.uint16) * np.uint16(257), photometric=0)
    assert np.array_equal(load_image(path).array[..., 0], gray)
    values = np.round(gray / 255 * 4095).astype(np.uint16)
    path = tiff(tmp_path / "bits.tif", values, tags=[(341, 3, [4095])])
    assert np.array_equal(load_image(path).array[..., 0], gray)
    half = np.where(left_half()[..., None], rgb().clip(1), 0)
    path = tiff(tmp_path / "nodata.tif", *parts(half), photometric=2, tags=[(42113, 2, "0")])
    assert np.array_equal(load_image(path).valid, left_half())
    alpha = np.where(left_half(), 255, 0).astype(np.uint8)
    path = tiff(tmp_path / "alpha.tif", *parts(rgb()), alpha, photometric=2, extra=[2])
    assert np.array_equal(load_image(path).valid, left_half())


def test_what_it_does_not_says_what_to_install(tmp_path, monkeypatch):
    planar = tiff(tmp_path / "planar.tif", *parts(rgb().astype(np.uint16)), photometric=2, planar=2)
    packed = gdal(tmp_path / "packed.tif", *parts(rgb().astype(np.uint16)), nbits=12)
    many = gdal(tmp_path / "many.tif", *parts(np.dstack([rgb(), rgb()])))
    masked = gdal(tmp_path / "masked.tif", *parts(rgb()), mask=np.where(left_half(), 255, 0).astype(np.uint8))
    jpeg = gdal(tmp_path / "a.jp2", *parts(rgb()), driver="JP2OpenJPEG")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    for path in (planar, packed, many, masked, jpeg):
        with pytest.raises(ImageError, match="pip install") as caught:
            load_image(path)
        assert str(path) in str(caught.value)


# --- the command -----------------------------------------------------------------------------------------------------


def test_ranges_and_bands_of_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    many = np.round(np.dstack([rgb(), scene(HEIGHT, WIDTH, 1)]) / 255 * 4095).astype(np.uint16)
    gdal("many.tif", *parts(many))
    Image.fromarray(rgb()[..., ::-1]).save("plain.png")
    gdal("five.tif", *parts(many)[:5])
    quick = ("-c", "cat, dog, grass", "--templates", "name", "--refine", "none", "--no-progress", "--json")

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main(["predict", *arguments, *quick])
        return caught.value.code or 0, *capsys.readouterr()

    def areas(text):
        return [json.loads(line)["areas"] for line in text.splitlines()]

    chosen = ("--range", "0,4095", "--bands", "3,2,1")
    for way in ((), ("--memory", "100GB")):
        _, expected, _ = run("plain.png", *way)
        code, out, _ = run("many.tif", *chosen, *way)
        assert code == 0 and areas(out) == areas(expected)
        code, _, err = run("many.tif", "plain.png", *way)
        assert code == 1 and "--bands 3,2,1" in err and "Traceback" not in err
        record = json.loads((tmp_path / "out" / "many.json").read_text())
        assert record["protocol"]["range"] == [0, 4095] and record["protocol"]["bands"] == [3, 2, 1]
    code, _, err = run("many.tif", "--range", "much")
    assert code == 2 and "--range takes numbers" in err
