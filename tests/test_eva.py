"""EVA-02 towers: equal to timm where timm runs, running where it does not, and read from the authors' names."""

import json

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from timm.models.eva import Eva

from ovseg.dense import CLIPSelf, MaskCLIP
from ovseg.registry import DENSE
from ovseg.towers import Preprocess, TowerCard, load_tower
from ovseg.towers.build import build_clip, make_tower
from ovseg.towers.eva import EvaTower, EvaVisual, eva_visual, rotations
from ovseg.towers.export import save_tower
from ovseg.towers.formats import EVA_NAMES, is_eva, stored_rotations, timm_names

BLOCKS, WIDTH, HEADS, PATCH, GRID = 3, 48, 3, 8, 4


def toy_eva(seed=0, **changes) -> EvaTower:
    settings = dict(
        img_size=PATCH * GRID, patch_size=PATCH, num_classes=24, global_pool="token", embed_dim=WIDTH, depth=BLOCKS,
        num_heads=HEADS, qkv_fused=False, mlp_ratio=8 / 3, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True,
        use_rot_pos_emb=True, ref_feat_shape=6,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vision = CLIPVisionCfg(layers=0, width=64, patch_size=1, image_size=1)
        clip = CLIP(24, vision, CLIPTextCfg(context_length=77, width=64, heads=1, layers=1))
        clip.visual = EvaVisual(Eva(**(settings | changes)))
        for parameter in clip.visual.parameters():
            std = 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.data.add_(std * torch.randn_like(parameter))
    return make_tower(clip.visual, clip.eval(), Preprocess(), TowerCard("toy eva", "toy-eva"))


def images(size=None, batch=2, seed=1):
    size = size or (PATCH * GRID,) * 2
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def eva():
    return toy_eva()


VARIANTS = [
    {},
    {"use_rot_pos_emb": False},
    {"ref_feat_shape": None},
    {"scale_mlp": False, "scale_attn_inner": False, "swiglu_align_to": 1},
    {"qkv_fused": True, "swiglu_mlp": False, "scale_mlp": False, "use_rot_pos_emb": False},
    {"init_values": 0.5},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda c: ",".join(c) or "plain")
def test_the_embedding_is_timms(changes):
    tower, x = toy_eva(**changes), images()
    torch.testing.assert_close(tower(x)[0], tower.clip.encode_image(x), atol=1e-5, rtol=1e-5)


def test_open_clips_eva_tower():
    clip = open_clip.create_model("EVA02-B-16", pretrained=None).eval()
    tower = make_tower(clip.visual, clip, Preprocess(), TowerCard("EVA02-B-16"))
    assert (tower.stride, tower.image_size, tower.table_grid) == (16, (224, 224), (14, 14))
    assert (tower.width, tower.embed_dim, len(tower.blocks)) == (768, 512, 12)
    assert tower.rotation.reference == (16, 16)
    x = images((224, 224), 1)
    with torch.inference_mode():
        torch.testing.assert_close(tower(x)[0], clip.encode_image(x), atol=1e-5, rtol=1e-5)


def test_tapped_path_equals_the_plain_one(eva):
    x = images((24, 40))
    taps = [f"block.{i}.{part}" for i in range(BLOCKS) for part in ("in", "q", "k", "v", "attn", "ln_2", "out")]
    plain, _ = eva(x)
    tapped, state = eva(x, taps)
    torch.testing.assert_close(tapped, plain, atol=1e-5, rtol=1e-5)
    assert set(state.taps) == set(taps) and state.grid == (3, 5)
    assert state.taps["block.0.q"].shape == (2, HEADS, 16, WIDTH // HEADS)
    torch.testing.assert_close(state.taps["block.1.in"], state.taps["block.0.out"])
    torch.testing.assert_close(state.taps["block.1.attn"].sum(-1), torch.ones(2, HEADS, 16))


def test_block_outputs_are_timms(eva):
    x = images()
    _, state = eva(x, [f"block.{i}.out" for i in range(BLOCKS)])
    for i, expected in enumerate(eva.visual.trunk.forward_intermediates(x, intermediates_only=True)):
        ours = state.taps[f"block.{i}.out"][:, 1:].transpose(1, 2).unflatten(2, state.grid)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (8, 8), (50, 33), (64, 16)])
def test_any_size_runs_as_timm_set_to_that_size(size):
    tower, x = toy_eva(), images(size, 1)
    found = tower(x, positions="antialias")[0]
    whole = [length // PATCH * PATCH for length in size]
    tower.visual.trunk.set_input_size(tuple(whole))  # timm resizes its table with a filter, too
    expected = tower.visual(x[..., : whole[0], : whole[1]])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_batch_is_loop_and_grids_alternate(eva):
    tall, wide = images((48, 16), 3), images((16, 48), 3)
    expected = [torch.cat([eva(x[i : i + 1])[0] for i in range(3)]) for x in (tall, wide)]
    torch.testing.assert_close(eva(tall)[0], expected[0], atol=1e-5, rtol=1e-5)
    first, second = eva.start(tall), eva.start(wide)  # as many patches on another grid
    for state, wanted in ((first, expected[0]), (second, expected[1])):
        state = eva.advance(state, -1)
        torch.testing.assert_close(eva.embedding(state.x, state.grid), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reference", [(6, 6), (5, 3), None])
def test_rotations_follow_their_equation(reference):
    grid, width = (3, 4), 16
    cos, sin = rotations(grid, width, reference, 10000.0, torch.device("cpu"))
    for row in range(12):
        y, x = divmod(row, 4)
        if reference:
            y, x = y / 3 * reference[0], x / 4 * reference[1]
        for pair in range(8):
            angle = (y if pair < 4 else x) * 10000.0 ** (-(pair % 4) / 4)
            np.testing.assert_allclose(cos[row, 2 * pair : 2 * pair + 2], np.cos(angle), atol=1e-6)
            np.testing.assert_allclose(sin[row, 2 * pair : 2 * pair + 2], np.sin(angle), atol=1e-6)


def test_queries_and_keys_are_turned_by_pairs_and_the_class_token_is_not(eva):
    state = eva.start(images((24, 40), 1))
    block = eva.blocks[0]
    normed = block.ln_1(state.x)
    q, k, v = block.qkv(normed)
    plain = block.block.attn.q_proj(normed).unflatten(2, (HEADS, -1)).transpose(1, 2)
    torch.testing.assert_close(q[:, :, 0], plain[:, :, 0])
    pairs = [t[:, :, 1:].unflatten(-1, (-1, 2)).norm(dim=-1) for t in (q, plain)]
    torch.testing.assert_close(*pairs, atol=1e-5, rtol=1e-5)
    cos, sin = rotations((3, 5), WIDTH // HEADS, (6, 6), 10000.0, torch.device("cpu"))
    a, b = plain[0, 1, 8, 4], plain[0, 1, 8, 5]  # the eighth token is patch 7
    expected = a * cos[7, 4] - b * sin[7, 4], b * cos[7, 5] + a * sin[7, 5]
    torch.testing.assert_close(q[0, 1, 8, 4:6], torch.stack(expected))
    assert block.block.attn.k_proj.bias is None and k.shape == v.shape


def test_scores_depend_on_offsets_alone():
    tower = toy_eva(ref_feat_shape=None)
    content = torch.randn(1, 1, WIDTH, generator=torch.Generator().manual_seed(0)).expand(1, 21, WIDTH)
    tower.rotation.use((4, 5))
    q, k, _ = tower.blocks[0].qkv(content)
    scores = (q @ k.transpose(-2, -1))[0, :, 1:, 1:].unflatten(1, (4, 5)).unflatten(-1, (4, 5))
    torch.testing.assert_close(scores[:, 0, 0, 1, 2], scores[:, 2, 1, 3, 3], atol=1e-5, rtol=1e-5)


def test_a_table_built_without_gradients_serves_training():
    tower = toy_eva(ref_feat_shape=5)
    with torch.inference_mode():
        tower(images((40, 24), 1))
    tower.visual.requires_grad_(True)
    tower(images((40, 24), 1))[0].sum().backward()
    assert tower.visual.trunk.blocks[0].attn.q_proj.weight.grad.abs().sum() > 0


def test_tokens_of_no_picture_are_told(eva):
    with pytest.raises(ValueError, match="tokens come from tower.start"):
        eva.blocks[0](torch.zeros(1, 100, WIDTH))


@pytest.mark.parametrize(
    "changes",
    [
        {"global_pool": "avg"},
        {"num_reg_tokens": 2},
        {"use_post_norm": True},
        {"attn_type": "rope"},
        {"rope_rotate_half": True},
        {"no_embed_class": True},
    ],
    ids=str,
)
def test_other_evas_are_refused(changes):
    with pytest.raises(ValueError, match="EVA02-B-16"):
        toy_eva(**changes)


@pytest.mark.parametrize("name", ["Vanilla", "SCLIP", "ClearCLIP", "NACLIP", "MaskCLIP", "GEM", "CLIPSelf", "CATSeg"])
def test_dense_methods_read_it(eva, name):
    out = DENSE.build(dict(type=name))(eva, images((24, 40)))
    assert out.features.shape == (2, 24, 3, 5) and out.features.isfinite().all()


def test_the_value_path_in_numpy(eva):
    x = images((24, 40), 1)
    state = eva.advance(eva.start(x, "exact"), -1)
    w = {k: v.detach().double().numpy() for k, v in eva.visual.trunk.state_dict().items()}
    block = f"blocks.{BLOCKS - 1}."

    def norm(z, name):
        mean, var = z.mean(-1, keepdims=True), z.var(-1, keepdims=True)
        return (z - mean) / np.sqrt(var + 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(z, name):
        return z @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    z = state.x[0].detach().double().numpy()
    value = linear(norm(z, f"{block}norm1"), f"{block}attn.v_proj")
    z = z + linear(norm(value, f"{block}attn.norm"), f"{block}attn.proj")
    y = norm(z, f"{block}norm2")
    gate, other = linear(y, f"{block}mlp.fc1_g"), linear(y, f"{block}mlp.fc1_x")
    z = z + linear(norm(gate / (1 + np.exp(-gate)) * other, f"{block}mlp.norm"), f"{block}mlp.fc2")
    expected = linear(norm(z, "norm"), "head")[1:].T.reshape(24, 3, 5)
    for dense in (CLIPSelf(), MaskCLIP()):
        np.testing.assert_allclose(dense(eva, x).features[0].detach(), expected, atol=1e-4, rtol=1e-4)


def theirs(tower: EvaTower) -> dict:
    """The tower's weights in EVA-CLIP's names, with the buffers of its files."""
    back = {timms: authors for authors, timms in EVA_NAMES.items()}
    state = {}
    for key, value in tower.clip.state_dict().items():
        if key.startswith("visual.trunk."):
            key = "visual." + key.removeprefix("visual.trunk.")
            for timms, authors in back.items():
                key = key.replace(timms, authors)
        elif key != "logit_scale":
            key = f"text.{key}"
        state[key] = value.clone()
    cos, sin = rotations((GRID, GRID), WIDTH // HEADS, tower.rotation.reference, 10000.0, torch.device("cpu"))
    for place in ("visual.rope.", *(f"visual.blocks.{i}.attn.rope." for i in range(BLOCKS))):
        state |= {f"{place}freqs_cos": cos, f"{place}freqs_sin": sin}
    return state


def test_the_authors_names(eva, tmp_path):
    state = theirs(eva)
    assert is_eva(state) and "visual.blocks.0.attn.q_bias" in state and "visual.blocks.2.mlp.ffn_ln.weight" in state
    assert stored_rotations(state) == {"heads": HEADS, "reference": 6}
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "clipself.pt")
    tower, x = load_tower(tmp_path / "clipself.pt"), images((24, 40))
    assert isinstance(tower, EvaTower)
    torch.testing.assert_close(tower(x)[0], eva(x)[0], atol=1e-5, rtol=1e-5)
    tokens = open_clip.SimpleTokenizer()(["a cat"])
    torch.testing.assert_close(tower.clip.encode_text(tokens), eva.clip.encode_text(tokens))


@pytest.mark.parametrize("text", ["", "text."])
def test_open_clips_names(eva, text):
    state = {k if k.startswith(("visual.", "logit")) else text + k: v for k, v in eva.clip.state_dict().items()}
    config = {"vision_cfg": {"eva": {"heads": HEADS, "reference": 6}}}
    clip = build_clip(state, False, config)
    torch.testing.assert_close(clip.encode_image(images()), eva.clip.encode_image(images()), atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_is_told(eva):
    state = theirs(eva)
    state.pop("visual.blocks.1.norm1.weight")
    state["visual.blocks.1.surplus"] = torch.zeros(1)
    state["visual.blocks.2.attn.v_bias"] = torch.zeros(WIDTH + 1)
    with pytest.raises(ValueError, match="blocks.1.norm1.weight.*blocks.1.surplus.*v_proj.bias"):
        build_clip(state, False)
    with pytest.raises(ValueError, match="not whole: head.weight"):
        eva_visual({k: v for k, v in timm_names(theirs(eva)).items() if "head.weight" not in k})
    with pytest.raises(ValueError, match="not those of a CLIP"):
        build_clip({k: v for k, v in theirs(eva).items() if k.startswith("visual.")}, False)


def test_an_exported_tower_needs_no_telling(eva, tmp_path):
    from safetensors import safe_open

    save_tower(eva, tmp_path / "eva.safetensors", "toy")
    with safe_open(tmp_path / "eva.safetensors", "pt") as file:
        assert json.loads(file.metadata()["ovseg"])["config"]["vision_cfg"] == {"eva": {"heads": 3, "reference": 6}}
    tower, x = load_tower(tmp_path / "eva.safetensors"), images((24, 40))
    torch.testing.assert_close(tower(x)[0], eva(x)[0], atol=1e-5, rtol=1e-5)
