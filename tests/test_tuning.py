"""Tuning presets: how much trains, that nothing changes before the first step, and that plain weights give the same."""

import copy
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch

from ovseg.registry import TOWERS as FAMILIES
from ovseg.registry import TUNING, names
from ovseg.testing.shrunken import save_small, shrunken, small_config
from ovseg.testing.toys import toy_tower
from ovseg.text.encoder import TextEncoder
from ovseg.towers import load_tower, tuning

from .test_dense import images
from .test_eva import toy_eva

BLOCKS, WIDTH, PATCHES, JOINT = 3, 128, 17, 48  # of the toy tower
COUNTS = {
    "QV": 2 * WIDTH**2 * BLOCKS,
    "Attention": (4 * WIDTH**2 + 4 * WIDTH) * BLOCKS,
    "Blocks": (12 * WIDTH**2 + 13 * WIDTH) * BLOCKS,
    "Positions": PATCHES * WIDTH,
    "Norms": 2 * WIDTH * (2 * BLOCKS + 2),
    "LastProjection": WIDTH * JOINT,
    "LoRA": 2 * 2 * 8 * WIDTH * BLOCKS,
    "SingularValues": 6 * WIDTH * BLOCKS,
    "Prompt": 16 * 64,
    "VisualPrompt": 10 * WIDTH * (BLOCKS - 1),
    "Everything": sum(p.numel() for p in toy_tower().visual.parameters()),
}


def trained(tower):
    return {name: p for name, p in tower.named_parameters() if p.requires_grad}


def test_every_preset_is_listed():
    assert set(COUNTS) == set(names(TUNING))


@pytest.mark.parametrize("name", COUNTS)
def test_how_much_trains(name):
    tower = toy_tower()
    (preset,) = tuning.apply(tower, [dict(type=name)])
    assert sum(p.numel() for p in trained(tower).values()) == COUNTS[name]
    assert tuning.trains(tower, "text" if name == "Prompt" else "visual")
    assert not tuning.trains(tower, "visual" if name == "Prompt" else "text")
    assert preset.penalty() is None


@pytest.mark.parametrize("name", sorted(set(COUNTS) - {"VisualPrompt"}))
@pytest.mark.parametrize("side", ["visual", "text"])
def test_nothing_changes_before_the_first_step_and_plain_weights_keep_it(name, side):
    if name == "Prompt" and side == "visual":
        return
    plain, tower, x = toy_tower(), toy_tower(), images((48, 80))
    tuning.apply(tower, [dict(type=name, towers=(side,))])
    torch.testing.assert_close(tower(x)[0], plain(x)[0], atol=1e-4, rtol=1e-4)
    if name != "Prompt":  # learned vectors before a prompt are no part of the plain tower
        words = [TextEncoder(t, "name").encode(["cat", "dog"]) for t in (plain, tower)]
        torch.testing.assert_close(*words, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        for parameter in trained(tower).values():
            parameter.mul_(1.1)
    before = tower(x)[0], TextEncoder(tower, "name").encode(["cat"])
    if name != "Prompt":
        plain.clip.load_state_dict(tuning.plain_state(tower.clip))
        torch.testing.assert_close(plain(x)[0], before[0])
        torch.testing.assert_close(TextEncoder(plain, "name").encode(["cat"]), before[1])
    torch.testing.assert_close(tower(x)[0], before[0])


@pytest.mark.parametrize("name", COUNTS)
def test_gradients_reach_what_trains_and_nothing_else(name):
    tower = toy_tower()
    tuning.apply(tower, [dict(type=name)])
    picture = tower.advance(tower.start(images((48, 80))), 3)
    loss = tower.project(picture.x).square().mean() + TextEncoder(tower, "name").encode(["cat"]).sum()
    loss.backward()
    with_gradient = {key for key, p in tower.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert with_gradient <= set(trained(tower))
    assert with_gradient or name == "Prompt"
    if name == "QV":
        assert len(with_gradient) == 2 * BLOCKS and not any("original1" in key for key in with_gradient)
        assert copy.deepcopy(tower)(images((48, 80)))[0].shape == (1, JOINT)


def test_both_sides_and_several_presets():
    tower = toy_tower()
    tuning.apply(tower, [dict(type="QV", towers=("visual", "text")), dict(type="Positions")])
    count = 2 * WIDTH**2 * BLOCKS + 2 * 64**2 * 2 + PATCHES * WIDTH
    assert sum(p.numel() for p in trained(tower).values()) == count


def test_low_rank_and_spectrum_by_the_formula():
    tower = toy_tower()
    attention = tower.visual.transformer.resblocks[0].attn
    weight = attention.in_proj_weight.detach().clone()
    tuning.apply(tower, [dict(type="LoRA", rank=2, alpha=6.0, targets=("k",))])
    change = attention.parametrizations.in_proj_weight[0]
    with torch.no_grad():
        change.up.normal_()
    expected = weight.clone()
    expected[WIDTH : 2 * WIDTH] += 3.0 * change.up[0] @ change.down[0]
    torch.testing.assert_close(attention.in_proj_weight, expected)

    tower = toy_tower()
    tuning.apply(tower, [dict(type="SingularValues")])
    attention = tower.visual.transformer.resblocks[0].attn
    s = attention.parametrizations.in_proj_weight.original
    with torch.no_grad():
        s.mul_(2)
    torch.testing.assert_close(attention.in_proj_weight, 2 * weight, atol=1e-4, rtol=1e-4)


def test_the_penalty_of_the_last_projection():
    tower = toy_tower()
    (preset,) = tuning.apply(tower, [dict(type="LastProjection", weight=0.5)])
    assert preset.penalty() == 0
    with torch.no_grad():
        tower.visual.proj.add_(2)
    torch.testing.assert_close(preset.penalty(), torch.tensor(0.5 * 4 * WIDTH * JOINT))


def test_learned_vectors_before_a_prompt():
    tower = toy_tower()
    tuning.apply(tower, [dict(type="Prompt", length=3)])
    encoder = TextEncoder(tower, "name")
    tokens = encoder.tokens(["cat"])
    plain = TextEncoder(toy_tower(), "name").tokens(["cat"])
    assert torch.equal(tokens[0, 4:8], plain[0, 1:5])  # the word and the end token, three places later
    seen = tower.clip.token_embedding(tokens)
    assert torch.equal(seen[0, 1:4], tower.clip.token_embedding.contexts)
    encoder.encode(["cat"]).sum().backward()
    assert tower.clip.token_embedding.contexts.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "preset, word",
    [
        (dict(type="QV", towers=("sound",)), "visual, text"),
        (dict(type="QV", towers=()), "visual, text"),
        (dict(type="LoRA", rank=0), "rank"),
        (dict(type="LoRA", targets=("x",)), "targets"),
        (dict(type="Prompt", towers=("visual",)), "text side"),
        (dict(type="VisualPrompt", length=0), "visual side"),
    ],
)
def test_mistakes(preset, word):
    with pytest.raises(ValueError, match=word):
        tuning.apply(toy_tower(), [preset])


@cache
def network_folder(architecture: str) -> Path:
    folder = Path(tempfile.mkdtemp())
    with shrunken():
        save_small(folder, small_config(architecture))
    return folder


def toy_network(architecture: str):
    """A small network of timm as open_clip's architecture has it."""
    with shrunken():
        return load_tower(network_folder(architecture))


TOWERS = {
    "vit": toy_tower,
    "eva": toy_eva,
    "resnet": lambda: toy_tower("resnet"),
    "timm_vit": lambda: toy_network("PE-Core-B-16"),
    "cnn": lambda: toy_network("convnext_base"),
}


def documented() -> dict[tuple[str, str], str]:
    """(preset, family) → what docs/training.md says of them."""
    lines = (Path(__file__).parents[1] / "docs/training.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| preset | ViT | EVA-02 | ResNet | ViT of timm | CNN of timm |") + 2
    rows = [line.strip("| ").split(" | ") for line in lines[start : lines.index("", start)]]
    return {(row[0].strip("`"), kind): row[i] for row in rows for i, kind in enumerate(TOWERS, 1)}


def test_the_table_has_every_preset_and_family():
    assert set(documented()) == {(name, family) for name in COUNTS for family in TOWERS}
    assert set(TOWERS) == set(names(FAMILIES))


@pytest.mark.parametrize("family", TOWERS)
@pytest.mark.parametrize("name", COUNTS)
def test_every_preset_on_every_family(name, family):
    tower, plain = TOWERS[family](), TOWERS[family]()
    assert tower.family == family
    says = documented()[name, family]
    x = images((48, 80) if family in ("vit", "eva", "timm_vit") else (96, 128))
    if says.startswith("refused"):
        with pytest.raises(ValueError, match=f"{name} finds nothing to tune .*{family}.*{says.partition(': ')[2]}"):
            tuning.apply(tower, [dict(type=name)])
        return
    tuning.apply(tower, [dict(type=name)])
    visual = [p for p in tower.visual.parameters() if p.requires_grad]
    assert bool(visual) == (not says.startswith("text side")) and trained(tower)
    if name not in ("Prompt", "VisualPrompt"):
        torch.testing.assert_close(tower(x)[0], plain(x)[0], atol=1e-4, rtol=1e-4)
        assert tuning.plain_state(tower.clip).keys() == plain.clip.state_dict().keys()
    loss = tower(x)[0].square().sum() + TextEncoder(tower, "name").encode(["cat"]).sum()
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained(tower).values())


def test_parts_of_the_families():
    for make in TOWERS.values():
        tower = make()
        parts = tower.parts("visual")
        own = {id(p) for p in tower.visual.parameters()}
        weights = [w for each in parts.attention for w in (each.q, each.k, each.v, each.out)]
        for weight in (*weights, *parts.feed_forward, *parts.positions, *parts.projection):
            assert id(weight.tensor) in own
            assert weight.tensor[weight.rows].shape[0] * weight.count == len(weight.tensor)
        assert {id(p) for p in parts.parameters()} == own
        for each in parts.attention[:1]:
            assert torch.equal(each.q.tensor[each.q.rows], list(each.q.tensor.chunk(each.q.count))[0])


def test_extra_tokens_beside_rotations_have_no_place():
    """The picture's queries and keys are those without extra tokens, and the keys of these are not turned."""
    tower, x = toy_eva(), images((24, 40))
    state = tower.start(x)
    block = tower.blocks[0]
    far = torch.randn(1, 3, tower.width)
    added = block.with_tokens(state.x, far)
    q, k, v = block.qkv(block.ln_1(torch.cat([state.x, far], 1)), 3)
    plain_q, plain_k, plain_v = block.qkv(block.ln_1(state.x))
    n = state.x.shape[1]
    torch.testing.assert_close(q[:, :, :n], plain_q)
    torch.testing.assert_close(k[:, :, :n], plain_k)
    torch.testing.assert_close(v[:, :, :n], plain_v)
    attention = block.block.attn
    raw = attention.k_norm(attention.k_proj(block.ln_1(far)).unflatten(2, (block.heads, -1)).transpose(1, 2))
    torch.testing.assert_close(k[:, :, n:], raw)
    y = state.x + block.out((block.scale * q[:, :, :n] @ k.transpose(-2, -1)).softmax(-1) @ v)
    torch.testing.assert_close(added, y + block.ffn(y), atol=1e-5, rtol=1e-5)


def test_a_side_that_is_not_there():
    tower = toy_tower()
    tower.clip = None
    with pytest.raises(ValueError, match="no text tower"):
        tuning.apply(tower, [dict(type="QV", towers=("text",))])


def test_prompted_blocks_cannot_be_read_part_by_part():
    tower = toy_tower()
    tuning.apply(tower, [dict(type="VisualPrompt", length=2)])
    assert tower(images((48, 80)))[0].shape == (1, JOINT)
    with pytest.raises(ValueError, match="part by part"):
        tower(images((48, 80)), taps=["block.0.q"])
