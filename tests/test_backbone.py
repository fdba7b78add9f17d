"""CLIP towers as backbones: levels, joint space, any size, what trains, learning rates by depth."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope

from ovseg.engine.config import load_config
from ovseg.registry import check_components
from ovseg.segmentors import CLIPBackbone
from ovseg.testing.toys import toy_tower
from ovseg.towers.positions import resize_positions
from tests.conftest import ROOT


def images(*size, batch=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["vit", "resnet"])
def kind(request):
    return request.param


def backbone(kind="vit", **options):
    torch.manual_seed(0)
    return CLIPBackbone(toy_tower(kind), **options).eval()


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (70, 101)])
def test_vit_levels(size):
    model = backbone()
    h, w = size[0] // 16, size[1] // 16
    levels = model(images(*size))
    assert [tuple(x.shape) for x in levels] == [
        (1, 128, 4 * h, 4 * w), (1, 128, 2 * h, 2 * w), (1, 128, h, w), (1, 128, h // 2, w // 2)
    ]  # fmt: skip
    assert model.out_indices == (0, 1, 2, 2) and model.channels == [128] * 4


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_resnet_levels(size):
    model = backbone("resnet", joint=True)
    *levels, (embedding, visual) = model(images(*size))
    assert [x.shape[1] for x in levels] == model.channels
    assert [x.shape[-2:] for x in levels] == [(size[0] // s, size[1] // s) for s in (4, 8, 16, 32)]
    assert embedding.shape == (1, 48) and visual.shape == (1, 48, size[0] // 32, size[1] // 32)


def test_joint_space_is_that_of_the_tower(kind):
    tower = toy_tower(kind)
    x = images(*tower.image_size)
    embedding, _ = backbone(kind, joint=True)(x)[-1]
    torch.testing.assert_close(embedding, tower.clip.encode_image(x), atol=1e-5, rtol=1e-5)


def test_raw_maps_are_the_outputs_of_the_blocks():
    tower = toy_tower()
    _, state = tower(images(48, 80), ["block.0.out", "block.-1.out"], positions="exact")
    levels = backbone(pyramid=False, out_indices=(0, -1))(images(48, 80))
    for level, tap in zip(levels, ("block.0.out", "block.-1.out"), strict=True):
        torch.testing.assert_close(level.flatten(2).transpose(1, 2), state.taps[tap][:, 1:], atol=1e-5, rtol=1e-5)


def test_pyramid_in_numpy():
    """The group norm of one group and the 2×2 transposed convolution of the second level, written out."""
    model = backbone(out_indices=(0, 0, 0, 0))
    raw = backbone(out_indices=(0,), pyramid=False)(images(32, 32))[0][0].detach().double().numpy()
    norm, up = model.fpn2
    normed = (raw - raw.mean()) / np.sqrt(raw.var() + norm.eps)
    normed = normed * norm.weight.detach().numpy()[:, None, None] + norm.bias.detach().numpy()[:, None, None]
    parts = np.einsum("chw,cdij->dhiwj", normed, up.weight.detach().double().numpy())
    expected = parts.reshape(128, 4, 4) + up.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(model(images(32, 32))[1][0].detach().numpy(), expected, atol=1e-4)


def test_pool_everywhere_in_numpy():
    model = backbone("resnet", joint=True, positions="bilinear")
    *levels, (embedding, visual) = model(images(64, 96))
    pool = {k: v.double().numpy() for k, v in model.attnpool.state_dict().items()}
    stage = levels[-1][0].flatten(1).T.detach().double().numpy()
    table = torch.from_numpy(pool["positional_embedding"])
    x = np.concatenate([stage.mean(0, keepdims=True), stage]) + resize_positions(table, (2, 3), "bilinear").numpy()
    heads = model.attnpool.num_heads

    def project(name):
        y = x @ pool[f"{name}_proj.weight"].T + pool[f"{name}_proj.bias"]
        return y.reshape(len(x), heads, -1).transpose(1, 0, 2)

    q, k, v = project("q"), project("k"), project("v")
    weights = np.exp(q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]))
    y = (weights / weights.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(x), -1)
    y = y @ pool["c_proj.weight"].T + pool["c_proj.bias"]
    ours = torch.cat([embedding[..., None], visual.flatten(2)], 2)[0].T
    np.testing.assert_allclose(ours.detach().numpy(), y, rtol=1e-4, atol=1e-5 * np.abs(y).max())


def test_batch_equals_loop(kind):
    model, x = backbone(kind, joint=True), images(64, 96, batch=3)
    together, alone = model(x), [model(each[None]) for each in x]
    for i, level in enumerate(together[:-1]):
        loop = torch.cat([each[i] for each in alone])
        torch.testing.assert_close(level, loop, atol=1e-5 * level.detach().abs().max().item(), rtol=1e-4)


def test_the_class_token_can_be_added_twice():
    once, twice = backbone(joint=True), backbone(joint=True, class_token_twice=True)
    assert not torch.allclose(once(images(64, 64))[-1][0], twice(images(64, 64))[-1][0], atol=1e-3)
    changed = toy_tower()
    with torch.no_grad():
        changed.visual.positional_embedding[0] += changed.visual.class_embedding
    same = CLIPBackbone(changed, joint=True).eval()
    torch.testing.assert_close(twice(images(64, 64))[-1], same(images(64, 64))[-1], atol=1e-5, rtol=1e-5)


def test_the_position_table_of_another_size_is_held():
    table = toy_tower().visual.positional_embedding
    model = backbone(position_size=96, positions="bilinear")
    assert model.positional_embedding.shape == (37, 128)
    inner = table[1:].T.reshape(1, 128, 4, 4)
    expected = F.interpolate(inner, (6, 6), mode="bilinear").flatten(2)[0].T
    torch.testing.assert_close(model.positional_embedding[1:], expected)
    assert backbone("resnet", position_size=256).attnpool.positional_embedding.shape == (65, 512)


def test_parameters_are_registered_once_under_openai_names(kind):
    tower = toy_tower(kind)
    model = CLIPBackbone(tower)
    visual = {k for k in tower.visual.state_dict() if not k.endswith("attn_mask")}
    assert {k for k in model.state_dict() if not k.startswith("fpn")} == visual
    copied = copy.deepcopy(model).double()
    assert copied.tower.dtype == torch.float64 and model.tower.dtype == torch.float32
    x = images(64, 64)
    [p.data.zero_() for name, p in copied.named_parameters() if name.endswith("fpn3.weight")]
    assert torch.isfinite(copied.eval()(x.double())[2]).all() and model.eval()(x)[2].abs().max() > 0
    if kind == "vit":
        assert copied.tower.visual.positional_embedding is copied.positional_embedding


def test_replaced_modules_reach_the_tower():
    model, x = backbone("resnet"), images(64, 64)
    expected = model(x)
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    torch.testing.assert_close(converted(x), expected)
    assert isinstance(converted.tower.visual.bn1, torch.nn.SyncBatchNorm)


def test_all_that_is_read_trains_and_nothing_else(kind):
    for joint in (False, True):
        model = backbone(kind, joint=joint).train()
        *levels, last = model(images(64, 64, batch=2))
        parts = [*levels, *(last if joint else [last])]
        sum((part * torch.randn_like(part)).sum() for part in parts).backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not backbone("vit").proj.requires_grad and backbone("vit", joint=True).proj.requires_grad


def test_presets_choose_what_trains():
    frozen = backbone(tuning=())
    assert {n.split(".")[0] for n, p in frozen.named_parameters() if p.requires_grad} <= {
        "fpn1",
        "fpn2",
        "fpn3",
        "fpn4",
    }
    tuned = backbone(tuning=[dict(type="QV")])
    names = [n for n, p in tuned.named_parameters() if p.requires_grad and not n.startswith("fpn")]
    assert len(names) == 2 * 3 and all("in_proj_weight" in name for name in names)
    torch.testing.assert_close(tuned(images(64, 64)), backbone()(images(64, 64)))
    prompted = backbone(tuning=[dict(type="VisualPrompt", length=2)])
    assert prompted.visual_prompts.requires_grad and prompted.layer_of("visual_prompts") == -1
    assert not torch.allclose(prompted(images(64, 64))[2], tuned(images(64, 64))[2])
    with pytest.raises(ValueError, match="a backbone has none"):
        backbone(tuning=[dict(type="LastProjection", weight=0.1)])


def test_frozen_batch_norms_keep_their_statistics():
    model = backbone("resnet", tuning=()).train()
    before = model.bn1.running_mean.clone()
    model(images(64, 64, batch=2))
    assert torch.equal(before, model.bn1.running_mean)
    model = backbone("resnet").train()
    model(images(64, 64, batch=2))
    assert not torch.equal(before, model.bn1.running_mean)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(out_indices=(0, 1)), "pyramid=False"),
        (dict(out_indices=(0, 1, 2, 3)), "0 to 2"),
        (dict(kind="resnet", out_indices=(1, 2)), "four stages"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        backbone(**options)


def test_too_small_a_picture():
    with pytest.raises(ValueError, match="32×32"):
        backbone()(images(16, 64))
    assert backbone(pyramid=False)(images(16, 64))[0].shape == (1, 128, 1, 4)


def test_under_a_neck_of_mmdetection(kind):
    import mmdet.models  # noqa: F401

    model = ROOT_MODELS.build(dict(type="ovseg.CLIPBackbone", weights=toy_tower(kind)))
    neck = ROOT_MODELS.build(dict(type="mmdet.FPN", in_channels=model.channels, out_channels=16, num_outs=5))
    assert [x.shape[-1] for x in neck(model(images(64, 64)))][:3] == [16, 8, 4]


def optimizer(model, **paramwise):
    cfg = dict(
        constructor="ovseg.LayerDecay",
        optimizer=dict(type="AdamW", lr=1.0, weight_decay=0.1),
        paramwise_cfg=paramwise,
    )
    return build_optim_wrapper(model, cfg).optimizer


class Wrapped(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, torch.nn.Conv2d(4, 4, 1)


def groups(model, **paramwise):
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(g["params"][0])]: g for g in optimizer(model, **paramwise).param_groups}


def test_layer_decay_of_a_vit():
    by_name = groups(Wrapped(backbone()), rate=0.5)
    block = "backbone.transformer.resblocks.{}.mlp.c_fc.weight"
    rates = [by_name[block.format(i)]["lr"] for i in range(3)]
    assert rates == pytest.approx([0.5**3, 0.5**2, 0.5])
    assert by_name["backbone.conv1.weight"]["lr"] == pytest.approx(0.5**4)
    assert by_name["backbone.positional_embedding"]["lr"] == pytest.approx(0.5**4)
    assert by_name["backbone.fpn2.1.weight"]["lr"] == by_name["head.weight"]["lr"] == 1.0
    decays = {name: group["weight_decay"] for name, group in by_name.items()}
    assert decays["head.weight"] == decays[block.format(1)] == 0.1
    for name in ("head.bias", "backbone.positional_embedding", "backbone.class_embedding", "backbone.ln_pre.weight"):
        assert decays[name] == 0.0


def test_layer_decay_of_a_resnet_and_own_factors():
    by_name = groups(Wrapped(backbone("resnet")), rate=0.5, custom_keys={"backbone": dict(lr_mult=0.1)})
    assert by_name["backbone.layer4.0.conv1.weight"]["lr"] == pytest.approx(0.1 * 0.5)
    assert by_name["backbone.conv1.weight"]["lr"] == pytest.approx(0.1 * 0.5**5)
    assert by_name["head.weight"]["lr"] == 1.0


@pytest.mark.parametrize("paramwise", [{}, dict(rate=1.5), dict(rate="0.5")])
def test_layer_decay_needs_a_rate(paramwise):
    with pytest.raises(ValueError, match="rate"):
        optimizer(Wrapped(backbone()), **paramwise)


def test_layer_decay_needs_a_backbone():
    with pytest.raises(ValueError, match="CLIPBackbone"):
        optimizer(Wrapped(torch.nn.Linear(2, 2)), rate=0.5)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/finetune").glob("*.py")), ids=lambda p: p.stem)
def test_configs(path):
    """All are sound; those of the embedded model build, and their heads fit the backbone."""
    cfg = load_config(path)
    check_components(cfg, cfg.default_scope)
    if cfg.model.get("backbone", {}).get("weights") == "tiny":
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            model = ROOT_MODELS.build(cfg.model).eval()
        assert model._forward(images(64, 96)).shape[:2] == (1, model.num_classes)
