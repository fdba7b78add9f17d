"""Towers: equal to open_clip where open_clip runs, and running where it does not."""

import open_clip
import pytest
import torch
import torch.nn.functional as F

from ovseg.testing.toys import toy_clip
from ovseg.towers.build import build_clip, build_visual
from ovseg.towers.positions import MODES, resize_positions

SIZES = [(64, 64), (48, 80), (70, 95), (17, 200)]


@pytest.fixture(params=["vit", "resnet"])
def tower(request):
    return request.getfixturevalue(request.param)


def images(tower, size=None, batch=2):
    size = size or tower.image_size
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def test_embedding_equals_open_clip(tower):
    x = images(tower)
    embedding, _ = tower(x)
    torch.testing.assert_close(embedding, tower.clip.encode_image(x), atol=1e-5, rtol=1e-5)


def test_text_embedding_equals_open_clip(vit):
    from ovseg.text.encoder import TextEncoder

    words = ["cat", "old sofa"]
    tokens = open_clip.SimpleTokenizer()([f"a photo of a {w}." for w in words])
    expected = F.normalize(vit.clip.encode_text(tokens), dim=-1)
    torch.testing.assert_close(TextEncoder(vit, "photo")(words), expected, atol=1e-5, rtol=1e-5)


def test_tapped_path_equals_the_plain_one(vit):
    x = images(vit, (48, 80))
    taps = [f"block.{i}.{part}" for i in range(3) for part in ("in", "ln_1", "q", "k", "v", "attn", "ln_2", "out")]
    plain, _ = vit(x)
    tapped, state = vit(x, taps)
    torch.testing.assert_close(tapped, plain, atol=1e-5, rtol=1e-5)
    assert set(state.taps) == set(taps)
    assert state.taps["block.0.q"].shape == (2, 2, 16, 64)
    assert state.taps["block.-1.out".replace("-1", "2")].shape == (2, 16, 128)
    torch.testing.assert_close(state.taps["block.1.attn"].sum(-1), torch.ones(2, 2, 16))
    torch.testing.assert_close(state.taps["block.1.in"], state.taps["block.0.out"])


def test_block_outputs_equal_open_clip_intermediates(vit):
    x = images(vit)
    _, state = vit(x, ["block.0.out", "block.-1.out"])
    maps = vit.visual.forward_intermediates(x)["image_intermediates"]
    for tap, expected in (("block.0.out", maps[0]), ("block.-1.out", maps[-1])):
        ours = state.taps[tap][:, 1:].transpose(1, 2).unflatten(2, state.grid)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("positions", MODES)
def test_any_size_runs(vit, size, positions):
    embedding, state = vit(images(vit, size, 1), positions=positions)
    assert embedding.shape == (1, vit.embed_dim) and embedding.isfinite().all()
    assert state.grid == (size[0] // 16, size[1] // 16)


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (100, 70)])
def test_any_size_runs_on_a_resnet(resnet, size):
    embedding, state = resnet(images(resnet, size, 1))
    assert embedding.shape == (1, resnet.embed_dim) and embedding.isfinite().all()
    assert state.x.shape[1] == state.grid[0] * state.grid[1] + 1 or state.index == 1


def test_batch_equals_loop(tower):
    x = images(tower, batch=3)
    loop = torch.cat([tower(x[i : i + 1])[0] for i in range(3)])
    torch.testing.assert_close(tower(x)[0], loop, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_positions_at_the_native_size_are_untouched(mode):
    table = torch.randn(17, 8)
    assert resize_positions(table, (4, 4), mode) is table


@pytest.mark.parametrize("mode", MODES)
def test_a_constant_position_table_stays_constant(mode):
    table = torch.ones(17, 3)
    torch.testing.assert_close(resize_positions(table, (5, 7), mode), torch.ones(36, 3), atol=1e-5, rtol=0)


def test_position_modes_differ_as_documented():
    table = torch.randn(17, 8, generator=torch.Generator().manual_seed(0))
    made = {mode: resize_positions(table, (2, 8), mode) for mode in MODES}
    assert made["scale_count"] is table
    for a, b in (("exact", "scale"), ("exact", "antialias"), ("scale", "antialias")):
        assert (made[a] - made[b]).abs().max() > 1e-2


def test_unknown_position_mode():
    with pytest.raises(ValueError, match="antialias"):
        resize_positions(torch.zeros(17, 2), (3, 3), "nearest")


@pytest.mark.parametrize("tap", ["block.9.q", "block.-4.q", "block.0.w", "q", "block.x.q"])
def test_unknown_tap(vit, tap):
    with pytest.raises(ValueError, match="unknown tap"):
        vit(images(vit), [tap])


@pytest.mark.parametrize("shape", [(1, 3, 8, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_too_small_or_wrong_images(vit, shape):
    with pytest.raises(ValueError, match="at least 16 pixels"):
        vit(torch.zeros(shape))


@pytest.mark.parametrize("kind", ["vit", "resnet"])
@pytest.mark.parametrize("half", [False, True])
def test_building_from_a_state_dict(kind, half):
    clip = toy_clip(kind, quick_gelu=True)
    state = {k: v.half() if half and v.is_floating_point() else v for k, v in clip.state_dict().items()}
    config = None
    if kind == "vit":
        config = {
            "embed_dim": 48,
            "vision_cfg": {"layers": 3, "width": 128, "patch_size": 16, "image_size": 64},
            "text_cfg": {"context_length": 77, "width": 64, "heads": 1, "layers": 2, "vocab_size": 49408},
        }
    again = build_clip(state, quick_gelu=True, config=config)
    x = (
        torch.randn(1, 3, again.visual.image_size[0], again.visual.image_size[0])
        if kind == "vit"
        else torch.randn(1, 3, 128, 128)
    )
    torch.testing.assert_close(again.encode_image(x), clip.encode_image(x), atol=5e-2 if half else 1e-6, rtol=1e-2)


def test_building_says_what_does_not_fit():
    state = toy_clip().state_dict()
    state["visual.proj"] = state["visual.proj"][:, :40]
    state.pop("ln_final.bias")
    state["surplus.weight"] = torch.zeros(2)
    config = {
        "embed_dim": 48,
        "vision_cfg": {"layers": 3, "width": 128, "patch_size": 16, "image_size": 64},
        "text_cfg": {"context_length": 77, "width": 64, "heads": 1, "layers": 2, "vocab_size": 49408},
    }
    with pytest.raises(ValueError, match="ln_final.bias.*surplus.weight.*visual.proj"):
        build_clip(state, False, config)
    with pytest.raises(ValueError, match="not those of a CLIP"):
        build_clip({"fc.weight": torch.zeros(2, 2)}, False)


def test_image_tower_alone():
    clip = toy_clip(quick_gelu=True)
    state = {k.removeprefix("visual."): v for k, v in clip.state_dict().items() if k.startswith("visual.")}
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(build_visual(state, heads=2)(x)[0], clip.encode_image(x), atol=1e-5, rtol=1e-5)
    assert (build_visual(state, heads=2, quick_gelu=False)(x)[0] - clip.encode_image(x)).abs().max() > 1e-3
