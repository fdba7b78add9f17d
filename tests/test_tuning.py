"""Tuning presets: how much trains, that nothing changes before the first step, and that plain weights give the same."""

import copy

import pytest
import torch

from ovseg.registry import TUNING, names
from ovseg.testing.toys import toy_tower
from ovseg.text.encoder import TextEncoder
from ovseg.towers import tuning

from .test_dense import images

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


def test_a_resnet_has_no_blocks_to_tune():
    with pytest.raises(ValueError, match="nothing to tune"):
        tuning.apply(toy_tower("resnet"), [dict(type="QV")])
    assert tuning.apply(toy_tower("resnet"), [dict(type="Attention"), dict(type="LastProjection")])
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
