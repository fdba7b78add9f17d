"""Towers whose position table is natively not square: equal to open_clip on that size, and read by everything else."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

import ovseg
from ovseg.apis.compare import Comparer
from ovseg.apis.locate import Locator
from ovseg.dense import SCLIP, CLIPSelf, MaskCLIP
from ovseg.regions import MaskedTokens
from ovseg.regions.clipself import fitted_crops
from ovseg.regions.crops import CropReader
from ovseg.registry import TUNING
from ovseg.segmentors import CLIPBackbone
from ovseg.testing.toys import toy_clip, toy_tower
from ovseg.towers import load_tower
from ovseg.towers.build import build_visual
from ovseg.towers.export import save_tower
from ovseg.towers.formats import visual_part
from ovseg.towers.positions import MODES, resize_positions

from .test_eva import toy_eva

SIZE, GRID = (96, 64), (6, 4)
VISION = {"layers": 3, "width": 128, "patch_size": 16, "image_size": list(SIZE)}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
CONFIG = {"embed_dim": 48, "vision_cfg": VISION, "text_cfg": TEXT}


def images(size=SIZE, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def tall():
    return toy_tower(image_size=SIZE)


def tall_eva():
    return toy_eva(img_size=(48, 32))


@pytest.fixture(scope="module")
def tower():
    return tall()


@pytest.fixture(scope="module")
def state():
    return {key: value.detach().clone() for key, value in toy_clip(image_size=SIZE).state_dict().items()}


@pytest.mark.parametrize("make, size, grid", [(tall, SIZE, GRID), (tall_eva, (48, 32), (6, 4))])
def test_parity_with_open_clip(make, size, grid):
    tower, x = make(), images(size)
    assert (tower.image_size, tower.table_grid) == (size, grid) and "square_grid" not in tower.provides
    torch.testing.assert_close(tower(x)[0], tower.clip.encode_image(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_the_table_is_resized_from_its_own_grid(tower, mode):
    table = tower.visual.positional_embedding
    assert resize_positions(table, GRID, mode, GRID) is table
    assert (resize_positions(table, (4, 6), mode, GRID) is table) == (mode == "scale_count")
    patches = table[1:].T.reshape(1, -1, *GRID)
    expected = {
        "exact": dict(size=(5, 7), mode="bicubic"),
        "antialias": dict(size=(5, 7), mode="bicubic", antialias=True),
        "bilinear": dict(size=(5, 7), mode="bilinear"),
    }.get(mode, dict(scale_factor=(5.1 / 6, 7.1 / 4), mode="bicubic"))
    wanted = F.interpolate(patches, **expected)[0].flatten(1).T
    torch.testing.assert_close(tower.position_table((5, 7), mode)[1:], wanted)
    with pytest.raises(ValueError, match="24 patches.*image_size"):
        resize_positions(table, (5, 7), mode)
    with pytest.raises(ValueError, match="24 patches is not one of 5×5"):
        resize_positions(table, (5, 7), mode, (5, 5))


def test_a_folder_says_it(tmp_path, state):
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG}))
    save_file(state, tmp_path / "open_clip_model.safetensors")
    tower, x = load_tower(tmp_path), images()
    assert tower.image_size == SIZE
    expected = toy_clip(image_size=SIZE).encode_image(x)
    torch.testing.assert_close(tower(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_a_file_that_does_not_say_it_is_refused(tmp_path, state):
    save_file(state, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="24 patches, which are not a square.*image_size.*open_clip_config.json"):
        load_tower(tmp_path / "plain.safetensors", quick_gelu=False)
    with pytest.raises(ValueError, match="image_size"):
        build_visual(visual_part(state), 2)
    with pytest.raises(ValueError, match="positional_embedding"):
        build_visual(visual_part(state), 2, config={"image_size": [64, 64]})
    x, named = images(), build_visual(visual_part(state), 2, False, config={"image_size": list(SIZE)})
    torch.testing.assert_close(named(x)[0], toy_clip(image_size=SIZE).encode_image(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make, size", [(tall, SIZE), (tall_eva, (48, 32))])
def test_export(tmp_path, make, size):
    tower, x = make(), images(size)
    save_tower(tower, tmp_path / "tall.safetensors", "tall")
    with safe_open(tmp_path / "tall.safetensors", "pt") as file:
        vision = json.loads(file.metadata()["ovseg"])["config"]["vision_cfg"]
    assert vision["image_size"] == list(size)
    again = load_tower(tmp_path / "tall.safetensors")
    assert again.image_size == size
    for pictures in (x, images((48, 80))):
        torch.testing.assert_close(again(pictures)[0], tower(pictures)[0], atol=1e-5, rtol=1e-5)


def test_methods_and_windows(tower):
    picture = np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    settings = dict(short_side=96, window=64, stride=32, templates="name")
    result = ovseg.load("sclip", tower=tower, classes="cat, dog", **settings)(picture)
    assert result.labels.shape == (90, 130)
    for dense in (SCLIP(), MaskCLIP(), CLIPSelf()):
        together = dense(tower, images((80, 112))).features
        alone = torch.cat([dense(tower, x[None]).features for x in images((80, 112))])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert not Comparer("cat, dog", "sclip, maskclip", tower=tower, short_side=96).compare(picture).failed


@pytest.mark.parametrize("name, count", [("Positions", 25 * 128), ("QV", 2 * 128**2 * 3), ("VisualPrompt", 20 * 128)])
def test_tuning(name, count):
    tower = tall()
    assert TUNING.build(dict(type=name)).apply(tower) == count
    assert tower(images((48, 80)))[0].isfinite().all()


def test_masked_tokens(tower):
    table = tower.visual.positional_embedding
    wanted = F.interpolate(table[1:].T.reshape(1, -1, *GRID), (9, 5), mode="bilinear")[0].flatten(1).T
    torch.testing.assert_close(MaskedTokens(1).positions(tower, (9, 5))[1:], wanted)
    x, masks = images(batch=1), torch.ones(1, 2, *SIZE)
    masks[0, 0, :48] = 0
    both = MaskedTokens()(tower, x, masks)
    torch.testing.assert_close(MaskedTokens()(tower, x, masks[:, :1]), both[:, :1], atol=1e-5, rtol=1e-4)


def test_backbone():
    x = images()
    embedding, joint = CLIPBackbone(tall(), joint=True).eval()(x)[-1]
    torch.testing.assert_close(embedding, toy_clip(image_size=SIZE).encode_image(x), atol=1e-5, rtol=1e-5)
    assert joint.shape[2:] == GRID
    resized = CLIPBackbone(tall(), position_size=(32, 64), positions="bilinear")
    assert resized.tower.table_grid == (2, 4) and resized.positional_embedding.shape == (9, 128)
    table = tall().position_table((2, 4), "bilinear")
    torch.testing.assert_close(resized.positional_embedding, table, check_stride=False)
    assert resized.eval()(images((96, 64)))[0].isfinite().all()


def test_crops_fit_the_tower(tower):
    picture = torch.rand(3, 60, 60, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[0.0, 0, 20, 30], [10, 10, 50, 20]])
    exact, wide = fitted_crops(picture, boxes, SIZE)
    whole = F.interpolate(picture[None, :, :30, :20], SIZE, mode="bicubic", antialias=True).clamp(0, 1)[0]
    torch.testing.assert_close(exact, whole)
    assert (wide[:, :40] == 0).all() and (wide[:, -40:] == 0).all() and (wide[:, 40:56] != 0).any()
    assert CropReader(tower)(picture, boxes).shape == (2, 48)


def test_phrases(tower):
    locator = Locator(tower=tower, counts=(20,), cache=False)
    assert locator.settings["size"] == list(SIZE)
    picture = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    x1, y1, x2, y2 = locator(picture, "a cat").box
    assert 0 <= x1 < x2 <= 70 and 0 <= y1 < y2 <= 50


@pytest.mark.parametrize("make, grid", [(toy_tower, (3, 5)), (tall, (4, 4)), (tall_eva, (3, 5))])
def test_a_resized_table_is_native(make, grid):
    tower, plain = make(), make()
    size = tuple(tower.stride * length for length in grid)
    tower.resize_table(grid, "exact")
    assert (tower.image_size, tower.table_grid) == (size, grid)
    x = images(size)
    torch.testing.assert_close(tower(x, positions="scale")[0], plain(x, positions="exact")[0], atol=1e-5, rtol=1e-5)


def test_a_resnets_table_is_square():
    tower = toy_tower("resnet")
    tower.resize_table((3, 3), "exact")
    assert tower.image_size == (96, 96) and tower.visual.attnpool.positional_embedding.shape[0] == 10
    with pytest.raises(ValueError, match="square position table; got 2×4"):
        tower.resize_table((2, 4), "exact")
    state = visual_part(tower.clip.state_dict())
    with pytest.raises(ValueError, match="square position table"):
        build_visual(state, config={"image_size": [96, 64]})
