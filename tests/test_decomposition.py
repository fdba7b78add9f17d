"""The additive decomposition of the image embedding: exact, in line with the extractor, described by TextSpan."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from PIL import Image

from ovseg import cli
from ovseg.apis import explain
from ovseg.apis.explain import Explainer, heat_map, text_span
from ovseg.compat import notice
from ovseg.dense import ClipPRS, DenseFeatures, decompose
from ovseg.score import CenteredScore
from ovseg.towers import Preprocess, TowerCard
from ovseg.towers.build import make_tower

from .conftest import ROOT


def images(size, batch=1, seed=0):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def tower_of(layers=2, heads=3, projection=True, **options):
    """A tower whose biases, norms and layer scales are all at work."""
    with torch.random.fork_rng():
        torch.manual_seed(layers)
        visual = VisionTransformer(64, 16, 24 * heads, layers, heads, 2.0, output_dim=40, **options)
        for parameter in visual.parameters():
            torch.nn.init.normal_(parameter, 0.1, std=0.3)
    if not projection:
        visual.proj = None
    return make_tower(visual.eval(), None, Preprocess(), TowerCard("some"))


TOWERS = [
    dict(layers=1),
    dict(layers=2, heads=1, projection=False),
    dict(layers=5, heads=2),
    dict(layers=3, ls_init_value=0.5),
    dict(layers=2, no_ln_pre=True),
]


@pytest.mark.parametrize("options", TOWERS, ids=str)
@pytest.mark.parametrize("size", [(64, 64), (48, 112), (16, 16), (70, 95)])
def test_the_parts_add_up_to_the_unit_embedding(options, size):
    tower, x = tower_of(**options), images(size, 2)
    parts = decompose(tower, x)
    depth, heads, tokens = len(tower.blocks), tower.blocks[0].heads, 1 + (size[0] // 16) * (size[1] // 16)
    assert parts.attn.shape == (2, depth, tokens, heads, tower.embed_dim)
    assert parts.mlp.shape == (2, depth + 1, tower.embed_dim) and parts.grid == (size[0] // 16, size[1] // 16)
    expected = tower(x)[0]
    torch.testing.assert_close(parts.embedding, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(parts.total(), F.normalize(expected, dim=-1), atol=2e-6, rtol=1e-4)
    dense = ClipPRS()(tower, x)
    summed = parts.attn[:, :, 1:].sum((1, 3)).transpose(1, 2).unflatten(2, parts.grid)
    torch.testing.assert_close(dense.features, summed, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(dense.embedding, expected, atol=1e-5, rtol=1e-4)


def test_one_part_in_numpy():
    """Block 1, head 2, token 3 and the feed-forward of block 0, from the equations in float64."""
    tower, x = tower_of(layers=3), images((64, 64))
    visual, parts = tower.visual, decompose(tower, x)
    state = tower.advance(tower.start(x), 3, ["block.0.in", "block.1.attn", "block.1.v", "block.0.out", "block.0.ln_2"])
    taps = {name: tap[0].double().numpy() for name, tap in state.taps.items()}
    z = state.x[0, 0].double().numpy()
    deviation = np.sqrt(z.var() + visual.ln_post.eps)
    weight, bias, p = (t.double().numpy() for t in (visual.ln_post.weight, visual.ln_post.bias, visual.proj))
    length = np.linalg.norm(((z - z.mean()) / deviation * weight + bias) @ p)

    def read(u, share):
        return ((u - share * z.mean()) / deviation * weight + share * bias) @ p / length

    projection = visual.transformer.resblocks[1].attn.out_proj
    u = projection.weight.double().numpy()[:, 48:72] @ (taps["block.1.attn"][2, 0, 3] * taps["block.1.v"][2, 3])
    expected = read(u + projection.bias.double().numpy() / (17 * 3), 1 / (7 * 17 * 3))
    np.testing.assert_allclose(parts.attn[0, 1, 3, 2].numpy(), expected, atol=2e-6, rtol=1e-4)
    ffn = visual.transformer.resblocks[0].mlp(state.taps["block.0.ln_2"])[0, 0].double().numpy()
    np.testing.assert_allclose(parts.mlp[0, 1].numpy(), read(ffn, 1 / 7), atol=2e-6, rtol=1e-4)
    np.testing.assert_allclose(parts.mlp[0, 0].numpy(), read(taps["block.0.in"][0], 1 / 7), atol=2e-6, rtol=1e-4)


def test_onto_words_and_summed_over_tokens(vit):
    x, text = images((48, 80), 2), F.normalize(torch.randn(5, vit.embed_dim), dim=-1)
    parts = decompose(vit, x)
    scores, summed = decompose(vit, x, text), decompose(vit, x, tokens=False)
    torch.testing.assert_close(scores.attn, parts.attn @ text.T, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(scores.mlp, parts.mlp @ text.T, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(scores.total(), F.normalize(vit(x)[0], dim=-1) @ text.T, atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(summed.attn[:, :, 0], parts.attn.sum(2), atol=2e-6, rtol=1e-4)


def test_tokens_instead_of_images(vit):
    x = images((64, 64))
    state = vit.start(x)
    before = state.x.clone()
    torch.testing.assert_close(decompose(vit, state).attn, decompose(vit, x).attn)
    assert state.index == 0 and torch.equal(state.x, before)
    with pytest.raises(ValueError, match="already passed 2"):
        decompose(vit, vit.advance(state, 2))


def test_layers_and_removed_heads_are_sums_and_differences(vit):
    x = images((48, 80), 2)
    parts = decompose(vit, x).attn[:, :, 1:]  # (B, L, h·w, heads, E)

    def check(expected, **options):
        features = ClipPRS(**options)(vit, x).features.flatten(2).transpose(1, 2)
        torch.testing.assert_close(features, expected, atol=2e-6, rtol=1e-4)

    everything = parts.sum((1, 3))
    check(everything - parts[:, 2, :, 1] - parts[:, 0, :, 0], remove_heads=[(2, 1), [-3, 0]])
    check(parts[:, 1:].sum((1, 3)), layers=[-1, 1, 2])
    check(parts[:, 2, :, 0], layers=[2], remove_heads=[(2, 1), (0, 0)])
    check(torch.zeros_like(everything), layers=[0], remove_heads=[(0, 0), (0, 1)])


@pytest.mark.parametrize(
    "options, word",
    [
        (dict(layers=[]), "at least one"),
        (dict(layers=["last"]), "numbers of blocks"),
        (dict(layers=3), "numbers of blocks"),
        (dict(remove_heads=[3, 1]), "pairs"),
        (dict(remove_heads=[(1, 2, 3)]), "pairs"),
        (dict(remove_heads=[(1.0, 2)]), "pairs"),
        (dict(remove_heads=5), "pairs"),
    ],
)
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        ClipPRS(**options)


@pytest.mark.parametrize("options", [dict(layers=[3]), dict(layers=[-4]), dict(remove_heads=[(0, 2)])])
def test_what_the_tower_does_not_have(options, vit):
    with pytest.raises(ValueError, match="blocks 0 to 2 .* heads 0 to 1"):
        ClipPRS(**options)(vit, images((64, 64)))


def test_towers_without_a_class_token(resnet):
    for tower in (resnet, tower_of(pool_type="avg")):
        with pytest.raises(ValueError, match="ViT"):
            decompose(tower, images((96, 96)))
        with pytest.raises(ValueError, match="ViT"):
            ClipPRS()(tower, images((96, 96)))


def test_centered_score(vit):
    dense, text = ClipPRS()(vit, images((48, 80), 2)), F.normalize(torch.randn(5, vit.embed_dim), dim=-1)
    scores = CenteredScore()(dense, text)
    plain = torch.einsum("behw,te->bthw", dense.features, text)
    torch.testing.assert_close(scores, plain - plain.mean(1, keepdim=True), atol=1e-6, rtol=1e-5)
    assert scores.sum(1).abs().max() < 1e-6 and CenteredScore()(dense, text[:1]).abs().max() == 0
    longer = DenseFeatures(3 * dense.features, dense.embedding)
    torch.testing.assert_close(CenteredScore()(longer, text), 3 * scores, atol=1e-6, rtol=1e-4)


class TestTextSpan:
    def test_known_directions(self):
        rng = np.random.default_rng(0)
        axes = np.linalg.qr(rng.normal(size=(32, 32)))[0]
        sizes = np.array([5.0, 2.0, 1.0])
        samples = rng.normal(size=(200, 3))
        samples = np.linalg.qr(samples - samples.mean(0))[0] * 200**0.5  # uncorrelated, so that shares are known
        contributions = (samples * sizes) @ axes[:3] + 7 * axes[3]
        text = np.stack([axes[9], axes[2], axes[0], axes[1], (axes[0] + axes[8]) / 2**0.5])
        found = text_span(torch.tensor(contributions), torch.tensor(text), list("xcabm"))
        assert [name for name, _ in found] == ["a", "b", "c"]  # nothing is left for x, or for m beyond a
        np.testing.assert_allclose([share for _, share in found], sizes**2 / (sizes**2).sum(), rtol=1e-9)

    def test_words_that_overlap(self):
        """After the first word, only what is new in the others counts."""
        rng = np.random.default_rng(1)
        c = rng.normal(size=(100, 2)) * [3.0, 1.0]
        text = np.array([[1.0, 0.0], [0.96, 0.28], [0.0, 0.9]])
        found = text_span(torch.tensor(c), torch.tensor(text), ["along", "nearly", "across"])
        assert [name for name, _ in found] == ["along", "across"] and sum(s for _, s in found) == pytest.approx(1)

    def test_top_and_nothing_to_explain(self):
        c = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
        assert len(text_span(c, torch.eye(6), "abcdef", top=2)) == 2
        assert text_span(c[:1].expand(5, -1), torch.eye(6), "abcdef") == []
        assert text_span(torch.zeros(4, 6), torch.eye(6), "abcdef") == []

    @pytest.mark.parametrize("n, width, names, top", [(1, 6, 6, 5), (4, 5, 6, 5), (4, 6, 5, 5), (4, 6, 6, 0)])
    def test_mistakes(self, n, width, names, top):
        with pytest.raises(ValueError, match="text_span takes"):
            text_span(torch.ones(n, width), torch.eye(6), "abcdef"[:names], top)


def test_heat_map():
    heat = heat_map(np.float32([[-1, 0], [2, 4]]), (2, 2))
    np.testing.assert_allclose(heat, [[0, 0], [0.5, 1]])
    assert heat_map(np.full((2, 3), 0.7, np.float32), (8, 9)).max() == 0
    assert heat_map(np.float32([[-1, -2]]), (8, 9)).max() == 0


@pytest.fixture(scope="module")
def explainer():
    return Explainer(templates="name", cache=False)


def test_explain(explainer):
    found = explainer.explain(ROOT / "demo" / "scene.png", "bus|coach, owl, grass, sky")
    height, width = found.image.shape[:2]
    depth, heads = len(explainer.tower.blocks), explainer.tower.blocks[0].heads
    assert found.attention.shape == (4, depth, heads) and found.mlp.shape == (4, depth + 1)
    assert found.error < 1e-6 and found.words[0] in ("bus", "coach")
    np.testing.assert_allclose(found.tokens.sum(1), found.attention.sum((1, 2)), atol=1e-6)
    assert found.heat(0).shape == (height, width) and found.heat(1).min() == 0 and found.heat(1).max() == 1
    block, head, part = found.strongest(1)[0]
    assert part == pytest.approx(found.attention[1].max()) and found.attention[1, block, head] == pytest.approx(part)
    assert max(found.plot(most=2).size) > 200


def test_heads_get_names(explainer):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(4)]
    done = []
    named = explainer.name_heads(pictures, "bus, owl, grass, sky, sea", top=3, progress=done.append)
    assert [len(block) for block in named] == [b.heads for b in explainer.tower.blocks] and done == [1, 2, 3, 4]
    for head in (head for block in named for head in block):
        assert 1 <= len(head) <= 3 and 0 < sum(share for _, share in head) <= 1 + 1e-6
    with pytest.raises(ValueError, match="at least two pictures"):
        explainer.name_heads(pictures[0], "bus, owl")


def test_explainer_mistakes(explainer):
    with pytest.raises(ValueError, match="one more word"):
        explainer.explain(ROOT / "demo" / "scene.png", ["bus"])
    with pytest.raises(ValueError, match="got window"):
        Explainer(window=64)


@pytest.fixture
def ovseg(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notice, "_said", set())

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main(["explain", *map(str, arguments), "--templates", "name", "--no-progress"])
        return (caught.value.code or 0, *capsys.readouterr())

    return run


def test_command(ovseg, tmp_path):
    code, out, err = ovseg(ROOT / "demo" / "scene.png", "-c", "bus, owl, tree")
    assert code == 0 and "strongest block.head" in out and "embedded demo model" in err and "Traceback" not in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scene_explain.json", "scene_explain.png"]
    record = json.loads((tmp_path / "out" / "scene_explain.json").read_text(encoding="utf-8"))
    for one in record["classes"]:
        parts = np.sum(one["attention"]) + one["class_token_at_entry"] + sum(one["feed_forward"])
        assert parts == pytest.approx(one["cosine"], abs=1e-6)
        assert one["attention_from_class_token"] + one["attention_from_patches"] == pytest.approx(
            np.sum(one["attention"]), abs=1e-6
        )
    assert record["largest_error_of_the_sums"] < 1e-6 and [c["name"] for c in record["classes"]] == [
        "bus",
        "owl",
        "tree",
    ]
    assert Image.open(tmp_path / "out" / "scene_explain.png").size[0] > 200


def test_command_names_heads_and_lists_broken_pictures(ovseg, picture, tmp_path, explainer, monkeypatch):
    monkeypatch.setattr(explain, "Explainer", lambda *args, **kwargs: explainer)
    (folder := tmp_path / "in").mkdir()
    for index in range(3):
        Image.fromarray(np.roll(picture, 30 * index, 0)[:, :, :: -1 if index else 1]).save(folder / f"{index}.png")
    (folder / "broken.png").write_text("not a picture")
    code, _, err = ovseg(folder, "-c", "bus, owl, tree", "--heads", "-o", "there")
    assert code == 1 and "broken.png" in err and "1 of 4 picture(s) could not be read" in err
    record = json.loads((tmp_path / "there" / "heads.json").read_text(encoding="utf-8"))
    assert record["pictures"] == 3 and {"word", "share"} == set(record["heads"][0][0][0])


@pytest.mark.parametrize(
    "arguments, part",
    [
        (("-c", "bus, owl", "--heads"), "two pictures"),
        ((), "in one way"),
        (("-c", "bus, owl", "--short-side", "0"), "short_side=0"),
    ],
)
def test_command_mistakes(ovseg, arguments, part):
    code, _, err = ovseg(ROOT / "demo" / "scene.png", *arguments)
    lines = [line for line in err.splitlines() if line.startswith("ovseg: ")]
    assert code == 2 and len(lines) == 1 and part in lines[0] and "Traceback" not in err
