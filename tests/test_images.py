"""Images from every source become the same (H, W, 3) uint8 RGB."""

import subprocess
import sys
import threading
import warnings
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from ovseg.pictures import fetch, pixels
from ovseg.pictures.images import ImageError, ImageNotFoundError, iter_sources, load_image, read_ahead, unique_stems

RED, WHITE = (255, 0, 0), (255, 255, 255)


def rgb(height=4, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def solid(mode, color, size=(6, 4)):
    return Image.new(mode, size, color)


def written(path, image, **options):
    image.save(path, **options)
    return path


def gray16(values):
    return Image.fromarray(np.asarray(values, dtype=np.uint16))


# ---------------------------------------------------------------- good


def test_path_gives_array_path_and_name(tmp_path):
    array = rgb()
    loaded = load_image(str(written(tmp_path / "photo.one.png", Image.fromarray(array))))
    assert loaded.array.dtype == np.uint8 and np.array_equal(loaded.array, array)
    assert loaded.path == tmp_path / "photo.one.png" and loaded.name == "photo.one"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (solid("L", 128), (128, 128, 128)),
        (solid("1", 1), WHITE),
        (solid("RGBA", (255, 0, 0, 255)), RED),
        (solid("RGBA", (255, 0, 0, 0)), WHITE),
        (solid("RGBA", (0, 0, 0, 128)), (127, 127, 127)),
        (solid("LA", (0, 128)), (127, 127, 127)),
        (solid("CMYK", (0, 255, 255, 0)), RED),
        (solid("RGB", RED).convert("P"), RED),
        (solid("YCbCr", (255, 128, 128)), WHITE),
        (solid("I", 32896), (128, 128, 128)),
        (solid("F", 0.5), (128, 128, 128)),
        (gray16([[65535, 0], [32896, 257]]), [[WHITE, (0, 0, 0)], [(128, 128, 128), (1, 1, 1)]]),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_pillow_modes(image, expected):
    before = image.tobytes()
    array = load_image(image).array
    assert array.shape == (image.height, image.width, 3) and array.dtype == np.uint8
    assert np.array_equal(array, np.broadcast_to(np.uint8(expected), array.shape))
    assert image.tobytes() == before


@pytest.mark.parametrize(
    ("name", "image", "options", "expected"),
    [
        ("gray16.png", gray16(np.full((4, 6), 65535)), {}, WHITE),
        ("gray16.tif", gray16(np.full((4, 6), 32896)), {}, (128, 128, 128)),
        ("cmyk.jpg", solid("CMYK", (0, 255, 255, 0)), {"quality": 100}, RED),
        ("clear.png", solid("RGB", RED), {"transparency": RED}, WHITE),
        ("clear.gif", solid("P", 0), {"transparency": 0}, WHITE),
        ("float.tif", solid("F", 1.0), {}, WHITE),
        ("first.gif", solid("RGB", RED), {"save_all": True, "append_images": [solid("RGB", WHITE)]}, RED),
        (
            "first.webp",
            solid("RGB", WHITE),
            {"save_all": True, "append_images": [solid("RGB", 0)], "lossless": 1},
            WHITE,
        ),
        ("no_suffix", solid("RGB", RED), {"format": "PNG"}, RED),
    ],
)
def test_files(tmp_path, name, image, options, expected):
    array = load_image(written(tmp_path / name, image, **options)).array
    assert array.shape == (4, 6, 3)
    assert np.abs(array.astype(int) - np.array(expected)).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation(tmp_path, orientation, suffix):
    upright = Image.fromarray(rgb())
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path / f"turned.{suffix}", upright, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
        assert np.array_equal(load_image(image).array, expected)
    assert np.array_equal(load_image(path).array, expected)
    assert expected.shape == ((6, 4, 3) if orientation > 4 else (4, 6, 3))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_matter(tmp_path):
    path = written(tmp_path / "a.jpg", solid("RGB", RED), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7fgarbage")
    assert load_image(path).array.shape == (4, 6, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_thin(tmp_path, size):
    assert load_image(written(tmp_path / "thin.png", solid("RGB", RED, size))).array.shape == (size[1], size[0], 3)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda a: a, lambda a: a),
        (lambda a: a[:, :, 0], lambda a: a[:, :, :1].repeat(3, 2)),
        (lambda a: a[:, :, :1], lambda a: a[:, :, :1].repeat(3, 2)),
        (lambda a: a.astype(np.uint16) * 257, lambda a: a),
        (lambda a: (a.astype(np.uint16) * 257).astype(">u2"), lambda a: a),
        (lambda a: a / 255, lambda a: a),
        (lambda a: (a / 255).astype(np.float16), lambda a: a),
        (lambda a: a[:, :, 0] > 127, lambda a: np.where(a[:, :, :1] > 127, 255, 0).repeat(3, 2)),
        (lambda a: np.dstack([a, np.full(a.shape[:2], 255, np.uint8)]), lambda a: a),
        (lambda a: np.dstack([a, np.zeros(a.shape[:2], np.uint8)]), lambda a: np.full_like(a, 255)),
        (lambda a: a[::-1, ::2], lambda a: a[::-1, ::2]),
        (lambda a: torch.from_numpy(a).permute(2, 0, 1), lambda a: a),
        (lambda a: torch.from_numpy(a), lambda a: a),
        (lambda a: torch.from_numpy(a)[:, :, 0], lambda a: a[:, :, :1].repeat(3, 2)),
        (lambda a: torch.from_numpy(a)[None, :, :, 0], lambda a: a[:, :, :1].repeat(3, 2)),
        (lambda a: torch.nn.Parameter(torch.from_numpy(a).permute(2, 0, 1) / 255), lambda a: a),
    ],
)
def test_arrays_and_tensors(make, expected):
    array = rgb(5, 7)
    loaded = load_image(make(array))
    assert loaded.array.dtype == np.uint8 and loaded.path is None and loaded.name == "image"
    assert np.array_equal(loaded.array, expected(array))


def test_bfloat16():
    assert load_image(torch.ones(3, 2, 2, dtype=torch.bfloat16)).array.min() == 255


def test_torch_is_not_imported():
    code = (
        "import sys, numpy, ovseg; before = 'torch' in sys.modules;"
        "from ovseg.pictures.images import load_image; load_image(numpy.ones((2, 2)));"
        "print(before == ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"


def test_pillow_limit_is_raised_and_restored(tmp_path, monkeypatch):
    path = written(tmp_path / "big.png", solid("RGB", RED, (40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=load_image, args=(path,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        load_image(path)
    assert Image.MAX_IMAGE_PIXELS == 10


# ---------------------------------------------------------------- bad


def jpeg_bytes(size=(64, 64)):
    buffer = BytesIO()
    Image.fromarray(rgb(*size)).save(buffer, "JPEG")
    return buffer.getvalue()


def png_bytes():
    buffer = BytesIO()
    Image.fromarray(rgb(64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def png_header(width, height):
    buffer = BytesIO()
    solid("1", 0, (8, 8)).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"these are only words\n" * 50, "not an image"),
        ("cut.jpg", jpeg_bytes()[:-400], "damaged"),
        ("cut.png", png_bytes()[:5000], "damaged"),
        ("header.jpg", jpeg_bytes()[:20], "not an image"),
        ("huge.png", png_header(40000, 40000), "1 gigapixel"),
        ("huger.png", png_header(60000, 60000), "1 gigapixel"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        load_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*nowhere.jpg"):
        load_image(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match="is a folder"):
        load_image(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((3, 5, 7), np.uint8), "channels-first"),
        (np.zeros((2, 5, 7, 3), np.uint8), "one by one"),
        (np.zeros(5, np.uint8), "shape"),
        (np.full((4, 4), 200.0), "Divide by 255"),
        (np.full((4, 4), np.nan), "floats from nan"),
        (np.zeros((4, 4), np.int64), "uint8"),
        (torch.zeros(2, 3, 8, 8), "one by one"),
        (torch.zeros(5, 8, 8), "expected"),
        (solid("I", 70000), "32-bit"),
        (None, "NoneType"),
        (b"bytes", "bytes"),
        ("x" * 5000, "cannot be opened"),
        ("a\0b", "cannot be opened"),
    ],
)
def test_bad_objects(source, message):
    with pytest.raises(ImageError, match=message) as caught:
        load_image(source)
    assert len(str(caught.value)) < 500


def test_truncated_pillow_image():
    with pytest.raises(ImageError, match="PIL image is a damaged"):
        load_image(Image.open(BytesIO(jpeg_bytes()[:-400])))


# ---------------------------------------------------------------- many


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.PNG", "a.jpg", "sub/c.jpg", ".hidden.jpg"):
        written(tmp_path / name, solid("RGB", RED), format="PNG")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def names(items):
    return [Path(item).name for item in items]


def test_folder_and_glob(folder):
    assert names(iter_sources(folder)) == ["a.jpg", "b.PNG"]
    assert names(iter_sources(str(folder), recursive=True)) == ["a.jpg", "b.PNG", "c.jpg"]
    assert names(iter_sources(f"{folder}/*")) == ["a.jpg", "b.PNG"]
    assert names(iter_sources(f"{folder}/**/*.jpg")) == ["a.jpg", "c.jpg"]
    assert names(iter_sources(folder / "a.jpg")) == ["a.jpg"]
    assert names(iter_sources(folder / "notes.txt")) == ["notes.txt"]


def test_file_name_with_glob_characters(folder):
    path = written(folder / "a[1].jpg", solid("RGB", RED), format="PNG")
    assert list(iter_sources(str(path))) == [path]


def test_mix_nested_and_lazy(folder):
    array, image, url = rgb(), solid("L", 1), "http://127.0.0.1/x.jpg"
    items = iter_sources([array, (image, folder), url, torch.zeros(3, 2, 2)])
    found = list(items)
    assert len(items) == items.count == len(found) == 6
    assert found[0] is array and found[1] is image and found[4] == url
    seen = []

    def generate():
        for i in range(3):
            seen.append(i)
            yield folder / "a.jpg"

    items = iter_sources(generate())
    assert items.count is None and items and seen == []
    with pytest.raises(TypeError):
        len(items)
    assert next(iter(items)) == folder / "a.jpg" and seen == [0]
    assert list(items) == [folder / "a.jpg"] * 2


def test_single(folder):
    for source in (rgb(), solid("L", 1), torch.zeros(3, 2, 2), "http://h/x.jpg", folder / "a.jpg", load_image(rgb())):
        items = iter_sources(source)
        assert items.single and len(items) == 1
    for source in (folder / "sub", [folder / "a.jpg"], f"{folder}/a*.jpg", iter([rgb()])):
        assert not iter_sources(source).single


def test_the_array_is_a_copy():
    array = rgb()
    loaded = load_image(array)
    array[:] = 0
    assert loaded.array.any() and loaded.array.flags.writeable and load_image(loaded) is loaded


def test_nothing_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    for source in (tmp_path, f"{tmp_path}/*.jpg", f"{tmp_path}/*", tmp_path / "no.jpg", [tmp_path / "no.jpg"]):
        with pytest.raises(ImageNotFoundError):
            iter_sources(source)
    for source in ([], ()):
        with pytest.raises(ImageError, match="empty"):
            iter_sources(source)
    for source in (None, 3, b"x", {"a": 1}):
        with pytest.raises(ImageError, match="of type"):
            iter_sources(source)
    with pytest.raises(ImageError, match="no image at all"):
        list(iter_sources(x for x in ()))


@pytest.mark.parametrize(
    ("sources", "stems"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["x/cat.jpg", "y/cat.jpg", "dog.jpg"], ["x_cat", "y_cat", "dog"]),
        (["1/x/cat.jpg", "2/x/cat.jpg"], ["1_x_cat", "2_x_cat"]),
        (["x/cat.jpg", "x/cat.png"], ["x_cat_jpg", "x_cat_png"]),
        (["cat.jpg", "Cat.png"], ["cat_jpg", "Cat_png"]),
        (["cat.jpg", "cat.jpg"], ["cat_jpg", "cat_jpg_2"]),
        ([rgb(), rgb(), "image_2.png"], ["image", "image_3", "image_2"]),
        (["a:b?.png", "猫" * 80 + ".png", b"\xff.png".decode("utf-8", "surrogateescape")], ["a_b_", "猫" * 60, "_"]),
        (["http://h/a/b%20c.png?x=1", "http://h/"], ["b c", "image"]),
    ],
)
def test_unique_stems(sources, stems):
    assert unique_stems(sources) == stems
    assert len({stem.casefold() for stem in stems}) == len(sources)


# ---------------------------------------------------------------- URL


class Handler(BaseHTTPRequestHandler):
    body = jpeg_bytes()

    def do_GET(self):
        if self.path == "/missing.jpg":
            return self.send_error(404)
        if self.path == "/moved.jpg":
            self.send_response(302)
            self.send_header("Location", "/photo.jpg?x=1")
            return self.end_headers()
        body = b"<html>" * 100 if self.path == "/page" else self.body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (100 if self.path == "/cut.jpg" else 0)))
        self.end_headers()
        if self.path != "/silent.jpg":
            return self.wfile.write(body)
        threading.Event().wait(0.6)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("page", ["photo.jpg?size=1", "moved.jpg"])
def test_url(server, page):
    loaded = load_image(f"{server}/{page}")
    assert np.array_equal(loaded.array, load_image(Image.open(BytesIO(jpeg_bytes()))).array)
    assert loaded.path is None and loaded.name == page.split(".")[0]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("missing.jpg", "HTTP 404"),
        ("page", "not an image"),
        ("cut.jpg", "fetch|of .* bytes"),
        ("silent.jpg", "timed out"),
    ],
)
def test_bad_url(server, page, message, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    with pytest.raises(ImageError, match=message) as caught:
        load_image(f"{server}/{page}")
    assert f"{server}/{page}" in str(caught.value)


def test_url_too_large(server, monkeypatch):
    monkeypatch.setattr(fetch, "MAX_DOWNLOAD", 100)
    with pytest.raises(ImageError, match="larger"):
        load_image(f"{server}/photo.jpg")


def test_unreachable_server():
    with pytest.raises(ImageError, match="could not fetch"):
        load_image("http://127.0.0.1:9/a.jpg")
    assert pixels.MAX_PIXELS == 10**9


def test_reading_ahead_keeps_order_and_errors(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.new("RGB", (2, 3), (i, 0, 0)).save(path)
    paths[2].write_bytes(b"no picture")
    found = list(read_ahead(iter_sources(paths)))
    assert [item for item, _ in found] == paths
    assert isinstance(found[2][1], ImageError)
    assert [int(picture.array[0, 0, 0]) for i, (_, picture) in enumerate(found) if i != 2] == [0, 1, 3]
    assert list(read_ahead([])) == []


def test_a_generator_is_not_asked_ahead():
    """Frames that share one buffer."""
    buffer, asked = np.zeros((2, 2, 3), np.uint8), []

    def frames():
        for i in range(3):
            asked.append(i)
            buffer[:] = i
            yield buffer

    for i, (_, picture) in enumerate(read_ahead(iter_sources(frames()))):
        assert asked == list(range(i + 1)) and (picture.array == i).all()
