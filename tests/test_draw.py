"""Pictures: sizes, what is tinted, what the legend says."""

import numpy as np
import pytest
from PIL import Image

from ovseg.results.draw import MAX_SIDE, MIN_SIDE, draw_grid, draw_overlay, legend_entries
from ovseg.results.fonts import Text
from ovseg.text.palette import palette

NAMES = ["sky", "grass", "dog", "cat"]
COLORS = palette(4)


def scene(height, width, classes=4):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    labels = np.arange(width) * classes // width
    return image, np.broadcast_to(labels, (height, width)).copy()


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 700), (700, 1), (16, 12), (255, 255), (256, 300), (480, 640), (640, 480), (90, 900)]
)
def test_sizes(size):
    image, labels = scene(*size)
    assert draw_overlay(image, labels, NAMES, COLORS, legend=False).size == size[::-1]
    picture = draw_overlay(image, labels, NAMES, COLORS)
    factor = -(-MIN_SIDE // max(size)) if max(size) < MIN_SIDE else 1
    height, width = (side * factor for side in size)
    assert picture.mode == "RGB" and picture.width >= width and picture.height >= height
    assert picture.width > width or picture.height > height
    assert picture.width >= 60 and picture.width <= max(width, 1) + 0.6 * max(height, width, 300)


def test_large_images_are_drawn_smaller():
    image, labels = scene(1000, 5000)
    picture = draw_overlay(image, labels, NAMES, COLORS, legend=False)
    assert picture.size == (MAX_SIDE, round(1000 * MAX_SIDE / 5000))
    flat = np.asarray(draw_overlay(None, labels, NAMES, COLORS, legend=False))
    assert np.array_equal(flat[0, [10, -10]], [COLORS[0], COLORS[3]])


def test_alpha():
    image, labels = scene(40, 40, 1)
    flat = draw_overlay(image, labels, NAMES, COLORS, alpha=1, legend=False)
    assert np.array_equal(np.asarray(flat), np.broadcast_to(np.uint8(COLORS[0]), image.shape))
    weak, strong = (
        np.abs(
            np.asarray(draw_overlay(image, labels, NAMES, COLORS, alpha, legend=False)).astype(int) - COLORS[0]
        ).sum()
        for alpha in (0.2, 0.8)
    )
    assert strong < weak


@pytest.mark.parametrize("hidden", [-1, 4, 255, 65535, 2])
def test_unlabeled_and_untinted_pixels_stay_as_they_are(hidden):
    image, labels = scene(60, 60)
    labels[30:] = hidden
    picture = np.asarray(draw_overlay(image, labels, NAMES, COLORS, legend=False, untinted=[2]))
    assert np.array_equal(picture[32:], image[32:])
    assert (picture[:28, :14] != image[:28, :14]).any(-1).all()


def test_contours_separate_classes_but_do_not_cover_speckle():
    labels = np.zeros((100, 100), int)
    labels[:, 50:] = 1
    edge = np.asarray(draw_overlay(None, labels, NAMES, COLORS, legend=False))[:, 48:52].min(axis=2)
    assert (edge.max(axis=1) > 210).all()
    labels = np.random.default_rng(0).integers(0, 4, (100, 100))
    speckle = np.asarray(draw_overlay(None, labels, NAMES, COLORS, legend=False))
    assert np.array_equal(speckle[20:80, 20:80], np.uint8(COLORS)[labels][20:80, 20:80])


def swatches(picture, width):
    panel = np.asarray(picture)[:, width:].reshape(-1, 3)
    return [color for color in COLORS if (panel == color).all(1).sum() > 30]


@pytest.mark.parametrize("present", [[0], [2, 3], [0, 1, 2, 3]])
def test_one_swatch_for_each_class_that_is_present(present):
    image, labels = scene(400, 400, len(present))
    picture = draw_overlay(image, np.array(present)[labels], NAMES, COLORS)
    assert picture.width > 400 and picture.height == 400
    assert swatches(picture, 400) == [COLORS[i] for i in present]


def test_legend_entries():
    labels = np.array([[0, 0, 0, 1, 1, 1, 1, 2, 3, 9]])
    entries = legend_entries(labels, NAMES, COLORS, untinted=[0])
    assert [(e.name, e.color, e.fraction) for e in entries] == [
        ("grass", COLORS[1], 0.4),
        ("sky", None, 0.3),
        ("dog", COLORS[2], 0.1),
        ("cat", COLORS[3], 0.1),
        ("unlabeled", None, 0.1),
    ]
    short = legend_entries(labels, NAMES, COLORS, max_legend=2)
    assert [e.name for e in short] == ["grass", "sky", "2 more", "unlabeled"]
    assert short[2].fraction == pytest.approx(0.2)


@pytest.mark.parametrize("size", [(480, 640), (64, 64), (100, 900), (900, 100)])
@pytest.mark.parametrize("count", [20, 21, 200])
def test_long_legends(size, count):
    image, _ = scene(*size)
    labels = np.arange(size[0] * size[1]).reshape(size) % count
    names = [f"a rather long name for class number {i}" for i in range(count)]
    picture = draw_overlay(image, labels, names, palette(count))
    assert picture.width <= size[1] * (4 if max(size) < MIN_SIDE else 1) + 500 and picture.height < size[0] + 900


STRANGE = [
    "猫",
    "🐈",
    "👩‍👩‍👧",
    "e\u0301",
    "שולחן",
    "قطة",
    "\ud800",
    "\U0010ffff",
    "a\tb\nc\x00",
    "",
    " ",
    "x" * 5000,
    "\ufe0f",
    "\u202e",
]


@pytest.mark.parametrize("name", STRANGE)
def test_any_name_can_be_drawn(name):
    image, labels = scene(300, 300, 1)
    picture = draw_overlay(image, labels, [name], COLORS[:1])
    assert picture.width < 500 and draw_grid([(name, image)]).width < 400


def test_text():
    assert [part for part, _ in Text("\U0010fffe", 12).runs] == ["U+10FFFE"]
    assert [part for part, _ in Text("a\ufe0f\u200db\tc", 12).runs] == ["ab c"]
    full, cut = Text("a long name", 20), Text("a long name", 20, max_width=60)
    assert cut.width <= 60 < full.width and cut.runs[-1][0].endswith("…")


def test_text_without_matplotlib(monkeypatch):
    from ovseg.results import fonts

    monkeypatch.setattr(fonts, "_main_font", lambda: None)
    fonts.load_font.cache_clear()
    fonts._glyph.cache_clear()
    try:
        assert [part for part, _ in Text("cat кот", 12).runs] != []
        assert draw_grid([("cat кот", np.zeros((9, 9, 3), np.uint8))]).size
    finally:
        fonts.load_font.cache_clear()
        fonts._glyph.cache_clear()


def test_deterministic():
    image, labels = scene(120, 160)
    before = image.copy(), labels.copy()
    first, second = (draw_overlay(image, labels, NAMES, COLORS).tobytes() for _ in range(2))
    assert first == second
    assert np.array_equal(image, before[0]) and np.array_equal(labels, before[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.zeros((3, 3, 3), np.uint8)}, "same pixels"),
        ({"image": np.zeros((4, 4, 3))}, "same pixels"),
        ({"labels": np.zeros((4, 4))}, "integers"),
        ({"labels": np.zeros(4, int)}, "integers"),
        ({"names": ["a"]}, "one color per name"),
        ({"alpha": 1.5}, "from 0 to 1"),
    ],
)
def test_bad_arguments(changes, message):
    values = {"image": np.zeros((4, 4, 3), np.uint8), "labels": np.zeros((4, 4), int), "names": NAMES, "colors": COLORS}
    with pytest.raises(ValueError, match=message):
        draw_overlay(**{**values, **changes})


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, None, (1, 1)), (4, None, (2, 2)), (5, 3, (3, 2)), (2, 9, (2, 1))]
)
def test_grid(count, columns, shape):
    panels = [(f"method {i}", np.full((100 + i, 200, 3), 9, np.uint8)) for i in range(count)]
    grid = draw_grid(panels, columns)
    assert shape[0] * 200 < grid.width < shape[0] * 200 + 100
    assert shape[1] * 100 < grid.height < shape[1] * 180
    assert (np.asarray(grid) == 9).all(-1).sum() == sum(200 * (100 + i) for i in range(count))


def test_grid_columns_are_as_wide_as_what_they_hold():
    wide, narrow = np.zeros((50, 600, 3), np.uint8), np.zeros((50, 100, 3), np.uint8)
    assert draw_grid([("a", wide), ("b", narrow), ("c", narrow), ("d", narrow)], 2).width < 750


def test_large_grid_is_capped_and_mixes_sources():
    images = [Image.new("L", (5000, 2000), 7), np.zeros((10, 10, 3), np.uint8), Image.new("RGBA", (30, 4000))]
    assert max(draw_grid([("a", image) for image in images]).size) <= 2 * MAX_SIDE
    for panels, columns in (([], None), ([("a", images[1])], 0)):
        with pytest.raises(ValueError, match="at least one"):
            draw_grid(panels, columns)
