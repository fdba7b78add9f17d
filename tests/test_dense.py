"""Dense extractors: every registered one keeps the contract; the equations are derived again in numpy."""

import numpy as np
import pytest
import torch

from ovseg.dense import GEM, NACLIP, SCLIP, ClearCLIP, CLIPSurgery, CLIPtrase, LastBlock, MaskCLIP, ProxyCLIP, Vanilla
from ovseg.dense.clip_dinoiser import CLIPDINOiser, Correlations, pool
from ovseg.dense.features import pad_to_patches
from ovseg.registry import DENSE, names
from ovseg.towers import missing

METHODS = names(DENSE)


def build(name):
    """A method with toy weights where it needs any."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        needed = {"CLIPDINOiser": dict(correlations=Correlations(128, 16))}.get(name, {})
    return DENSE.build(dict(type=name, **needed))


def images(size, batch=1, seed=0):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", METHODS)
class TestContract:
    """What every extractor promises."""

    @pytest.mark.parametrize("size", [(64, 64), (48, 96), (70, 95)])
    def test_shapes(self, name, size, vit):
        out = build(name)(vit, images(size, 2))
        left, top, right, bottom = out.padding
        assert out.features.shape[:2] == (2, vit.embed_dim) and out.embedding.shape == (2, vit.embed_dim)
        assert out.features.shape[2:] == ((size[0] + top + bottom) // 16, (size[1] + left + right) // 16)
        assert out.features.isfinite().all() and out.features.dtype == torch.float32

    def test_batch_equals_loop(self, name, vit):
        dense, x = build(name), images((48, 80), 3)
        loop = torch.cat([dense(vit, x[i : i + 1]).features for i in range(3)])
        torch.testing.assert_close(dense(vit, x).features, loop, atol=1e-5, rtol=1e-5)

    def test_rows_of_a_batch(self, name, vit):
        dense, x = build(name), images((48, 80), 3)
        whole, two = dense(vit, x), dense(vit, x).rows(slice(1, 3))
        torch.testing.assert_close(two.features, whole.features[1:])
        torch.testing.assert_close(two.embedding, whole.embedding[1:])
        assert two.extras.keys() == whole.extras.keys() and two.padding == whole.padding
        if whole.reread is not None:
            semantic = torch.rand(3, 15, 15, generator=torch.Generator().manual_seed(1))
            again = two.rows(slice(1, 2)).reread(semantic[2:], slice(None))
            torch.testing.assert_close(again, whole.reread(semantic, slice(None))[2:], atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, name, dtype, vit):
        """Also of what is computed later, when the mode has been left."""
        dense, x = build(name), images((64, 80), 2)
        with torch.autocast("cpu", dtype):
            half = dense(vit, x)
        full = dense(vit, x)
        for one, other in ((half.features, full.features), (half.embedding, full.embedding)):
            assert torch.cosine_similarity(one.float(), other, dim=1).mean() > 0.97
        if half.reread is not None:
            assert half.reread(torch.ones(2, 20, 20), slice(None)).isfinite().all()

    def test_deterministic(self, name, vit):
        x = images((64, 64))
        first, second = (build(name)(vit, x).features for _ in range(2))
        assert torch.equal(first, second)

    def test_embedding_is_that_of_the_tower(self, name, vit):
        x = images((64, 64))
        torch.testing.assert_close(build(name)(vit, x).embedding, vit.clip.encode_image(x), atol=1e-5, rtol=1e-5)

    def test_runs_on_a_resnet_or_says_no(self, name, resnet):
        dense = build(name)
        if missing(resnet, dense.requires):
            with pytest.raises(ValueError, match="resnet"):
                dense(resnet, images((96, 128)))
            return
        out = dense(resnet, images((96, 128)))
        assert out.features.shape == (1, resnet.embed_dim, 3, 4) and out.features.isfinite().all()

    @pytest.mark.parametrize("size", [(16, 16), (16, 80), (64, 64)])
    def test_one_patch_and_even_pictures(self, name, size, vit):
        assert build(name)(vit, torch.zeros(1, 3, *size)).features.isfinite().all()

    def test_says_where_it_comes_from(self, name):
        component = DENSE.get(name)
        assert component.paper and component.__doc__ and component.protocol

    def test_unknown_option(self, name):
        with pytest.raises(ValueError, match="padding"):
            DENSE.build(dict(type=name, paddin="corner"))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x, norm):
    w, b = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.eps) * w + b


def numpy_last_block(tower, x, grid, weights, residual, ffn):
    """The family's equation in float64 numpy, for one image: tokens (N, D) → features (E, h, w)."""
    block = tower.visual.transformer.resblocks[-1]
    x = x.astype(np.float64)
    y = layer_norm(x, block.ln_1)
    qkv = y @ block.attn.in_proj_weight.detach().numpy().T + block.attn.in_proj_bias.detach().numpy()
    q, k, v = (part.reshape(len(x), 2, 64).transpose(1, 0, 2) for part in np.split(qkv, 3, -1))
    mixed = (weights(q, k, v) @ v).transpose(1, 0, 2).reshape(len(x), -1)
    z = mixed @ block.attn.out_proj.weight.detach().numpy().T + block.attn.out_proj.bias.detach().numpy()
    z = x + z if residual else z
    if ffn:
        with torch.no_grad():
            z = z + block.mlp(block.ln_2(torch.from_numpy(z).float())).numpy()
    z = layer_norm(z, tower.visual.ln_post) @ tower.visual.proj.detach().numpy()
    return z[1:].T.reshape(-1, *grid)


def relation(a, b):
    return softmax(a @ b.transpose(0, 2, 1) / 8)


def gaussian(grid, sigma):
    points = np.array([(i, j) for i in range(grid[0]) for j in range(grid[1])], float)
    distance = ((points[:, None] - points[None]) ** 2).sum(-1)
    return np.pad(np.exp(-distance / (2 * sigma**2)), ((1, 0), (1, 0)))


EQUATIONS = [
    (Vanilla(), lambda q, k, v, g: relation(q, k), True, True),
    (SCLIP(), lambda q, k, v, g: relation(q, q) + relation(k, k), True, True),
    (ClearCLIP(), lambda q, k, v, g: relation(q, q), False, False),
    (MaskCLIP(), lambda q, k, v, g: np.eye(q.shape[1])[None], True, True),
    (NACLIP(sigma=2.0), lambda q, k, v, g: softmax(k @ k.transpose(0, 2, 1) / 8 + gaussian(g, 2.0)), False, False),
    (LastBlock(("vv",), residual=True, ffn=False), lambda q, k, v, g: relation(v, v), True, False),
]


@pytest.mark.parametrize("dense, weights, residual, ffn", EQUATIONS, ids=[type(e[0]).__name__ for e in EQUATIONS])
def test_equation(dense, weights, residual, ffn, vit):
    x = images((48, 80))
    state = vit.advance(vit.start(x, dense.positions), -1)
    expected = numpy_last_block(
        vit, state.x[0].numpy(), state.grid, lambda q, k, v: weights(q, k, v, state.grid), residual, ffn
    )
    np.testing.assert_allclose(dense(vit, x).features[0].numpy(), expected, atol=2e-5, rtol=1e-4)


def test_last_n_sums_the_read_outs(vit):
    x = images((64, 64))
    dense = ClearCLIP(last_n=2)
    total = 0
    for index in (1, 2):
        state = vit.advance(vit.start(x), index)
        total = total + dense.read_out(vit.blocks[index], state.x, state.grid)
    expected = vit.project(total[:, 1:]).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(dense(vit, x).features, expected, atol=1e-5, rtol=1e-5)


def test_resnet_value_path_is_two_linear_maps(resnet):
    x = images((96, 128))
    pool = resnet.visual.attnpool
    stage = resnet.trunk(x).flatten(2).transpose(1, 2)
    expected = pool.c_proj(pool.v_proj(stage)).transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(MaskCLIP()(resnet, x).features, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "mode, size, padding, after",
    [
        ("floor", (70, 95), (0, 0, 0, 0), (70, 95)),
        ("symmetric", (70, 95), (0, 5, 1, 5), (80, 96)),
        ("corner", (70, 95), (0, 0, 1, 10), (80, 96)),
        ("corner", (64, 64), (0, 0, 0, 0), (64, 64)),
        ("floor", (5, 40), (0, 0, 0, 11), (16, 40)),
    ],
)
def test_padding(mode, size, padding, after):
    padded, got = pad_to_patches(torch.ones(1, 3, *size), 16, mode)
    assert got == padding and tuple(padded.shape[2:]) == after
    assert padded.sum() == 3 * size[0] * size[1]


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: NACLIP(gaussian="both"), "added"),
        (lambda: NACLIP(sigma=0), "sigma"),
        (lambda: LastBlock(("qx",)), "identity"),
        (lambda: LastBlock(last_n=0), "last_n"),
    ],
)
def test_bad_options(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def numpy_gem(block, x, grid_stream, beta=None):
    """One block of GEM's stream in numpy: x (N, D) tokens, stream (N, D)."""
    y = layer_norm(x, block.ln_1)
    qkv = y @ block.attn.in_proj_weight.numpy().T + block.attn.in_proj_bias.numpy()
    q, k, v = (part.reshape(len(x), 2, 64).transpose(1, 0, 2) for part in np.split(qkv, 3, -1))
    beta = np.linalg.norm(y, axis=-1).mean() / 8 if beta is None else beta
    total = 0
    for t in (v, k, q):
        unit = t / np.linalg.norm(t, axis=-1, keepdims=True)
        t = softmax(beta * unit @ unit.transpose(0, 2, 1)) @ unit
        unit = t / np.linalg.norm(t, axis=-1, keepdims=True)
        total = total + softmax(beta * unit @ unit.transpose(0, 2, 1)) @ v
    mixed = (total / 3).transpose(1, 0, 2).reshape(len(x), -1)
    return grid_stream + mixed @ block.attn.out_proj.weight.numpy().T + block.attn.out_proj.bias.numpy()


def test_gem_equation(vit):
    x, dense = images((48, 80)), GEM(depth=3)
    with torch.no_grad():
        inputs = [vit.advance(vit.start(x, dense.positions), i).x[0].numpy() for i in (1, 2)]
        stream = inputs[0]
        for i, tokens in zip((1, 2), inputs, strict=True):
            stream = numpy_gem(vit.visual.transformer.resblocks[i], tokens, stream)
        z = layer_norm(stream, vit.visual.ln_post) @ vit.visual.proj.numpy()
    np.testing.assert_allclose(dense(vit, x).features[0].numpy(), z[1:].T.reshape(-1, 3, 5), atol=1e-4, rtol=1e-3)


def test_clip_surgery_equation(vit):
    x, dense = images((48, 80)), CLIPSurgery(last_n=6)  # half of three blocks, rounded down, is one
    state = vit.advance(vit.start(x), 2)
    tokens = state.x[0].numpy()

    def weights(q, k, v):
        return softmax(v @ v.transpose(0, 2, 1) / 8)

    expected = numpy_last_block(vit, tokens, state.grid, weights, True, False)
    np.testing.assert_allclose(dense(vit, x).features[0].numpy(), expected, atol=5e-5, rtol=1e-3)


def test_cliptrase_correlation_is_the_mean_of_cosines(vit):
    x = images((48, 80))
    taps = vit.advance(vit.start(x), 2, [f"block.1.{part}" for part in "qkv"]).taps
    cosines = []
    for part in "qkv":
        t = taps[f"block.1.{part}"][0].numpy()
        unit = t / np.linalg.norm(t, axis=-1, keepdims=True)
        cosines.append((unit @ unit.transpose(0, 2, 1)).mean(0))
    r = np.mean(cosines, 0)
    expected = np.maximum(r[1:, 1:] - r[:1, 1:], 0)
    np.testing.assert_allclose(CLIPtrase()(vit, x).extras["correlation"][0].numpy(), expected, atol=1e-5)


def test_cliptrase_on_a_tower_of_one_block():
    from ovseg.testing.toys import toy_tower

    tower = toy_tower("vit")
    tower.blocks = tower.blocks[:1]
    with pytest.raises(ValueError, match="block"):
        CLIPtrase()(tower, images((64, 64)))


def test_proxy_weights():
    external = images((3, 4), 2)
    a = ProxyCLIP().weights(external)
    unit = external.flatten(2).numpy()
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    for i in range(2):
        c = unit[i].T @ unit[i]
        m = 3.0 * (c - 1.2 * c.mean())
        m[(m < 0) & ~np.eye(12, dtype=bool)] = -np.inf
        np.testing.assert_allclose(a[i].numpy(), softmax(m), atol=1e-5)
    assert torch.equal(ProxyCLIP().weights(torch.ones(1, 5, 2, 3))[0], torch.eye(6))


@pytest.mark.parametrize("grid", [(4, 4), (7, 3), (9, 12)])
def test_proxy_of_any_grid(grid, vit):
    dense, x = ProxyCLIP(), images((48, 80))
    assert dense(vit, x, torch.rand(1, 5, *grid)).features.shape == (1, 48, *grid)
    with pytest.raises(ValueError, match="external"):
        dense(vit, x, torch.rand(5, *grid))


def test_unknown_proxy_model():
    with pytest.raises(ValueError, match="timm"):
        DENSE.build(dict(type="ProxyCLIP", proxy=dict(type="TimmProxy", model="vit_no_such_model")))


def test_timm_proxy_from_a_file(tmp_path, vit):
    import timm
    from safetensors.torch import save_file

    model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    save_file(model.state_dict(), tmp_path / "proxy.safetensors")
    proxy = dict(type="TimmProxy", model="vit_tiny_patch16_224", checkpoint=tmp_path / "proxy.safetensors")
    out = DENSE.build(dict(type="ProxyCLIP", proxy=proxy))(vit, images((48, 80)))
    assert out.features.shape == (1, 48, 3, 5) and out.features.isfinite().all()


def test_dinoiser_pools_by_correlation(vit):
    f, c = torch.rand(1, 6, 2, 3), torch.rand(1, 6, 6)
    kept = torch.where(c < 0.4, 0, c)
    expected = torch.einsum("bef,bpf->bep", f.flatten(2), kept) / (kept.sum(-1)[:, None] + 1e-6)
    torch.testing.assert_close(pool(f, c, 0.4).flatten(2), expected)
    with pytest.raises(ValueError, match="two trained convolutions"):
        CLIPDINOiser()
    with pytest.raises(ValueError, match="width 64"):
        CLIPDINOiser(correlations=Correlations(64, 8))(vit, images((64, 64)))
    with pytest.raises(ValueError, match="missing"):
        Correlations.from_state({"obj_proj.weight": torch.zeros(1)})


def test_more_blocks_than_the_tower_has(vit):
    with pytest.raises(ValueError, match="only 3"):
        ClearCLIP(last_n=4)(vit, images((64, 64)))
