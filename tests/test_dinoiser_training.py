"""CLIP-DINOiser's training: losses from their equations, teachers, saliency, the authors' file format, a run."""

import cv2
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from ovseg.compat.checkpoint import read_checkpoint_with_meta
from ovseg.dense import CLIPDINOiser, TimmProxy, TimmValues
from ovseg.dense.clip_dinoiser import Correlations
from ovseg.engine.config import load_config
from ovseg.registry import DATASETS, MODELS, check_components
from ovseg.segmentors.dinoiser_training import correlation_loss, partition, saliency_loss
from ovseg.testing.toys import toy_tower
from tests.conftest import ROOT
from tests.smoke import losses_of

OPTIONS = dict(type="DinoiserTraining", dense=dict(type="CLIPDINOiser"), vocabulary=["cat", "dog"])


def bce(logits, targets):
    return (np.log1p(np.exp(logits)) - logits * targets).mean()


def test_losses_follow_their_equations():
    rng = np.random.default_rng(0)
    raw, teacher = rng.uniform(-1, 1, (2, 6, 6)), rng.uniform(-1, 1, (2, 6, 6))
    for gamma in (0.0, 0.2, 0.7):
        cut = np.where(teacher < gamma, 0, teacher)
        found = correlation_loss(torch.from_numpy(raw), torch.from_numpy(teacher), gamma)
        np.testing.assert_allclose(found, bce(np.maximum(raw, 0), cut > 0), rtol=1e-9)
        assert found == correlation_loss(torch.from_numpy(raw), torch.from_numpy(cut), gamma)
    logits, saliency = rng.normal(size=(2, 1, 3, 4)), rng.random((2, 1, 3, 4))
    found = saliency_loss(torch.from_numpy(logits), torch.from_numpy(saliency))
    np.testing.assert_allclose(found, bce(logits, saliency > 0.5), rtol=1e-9)


def test_the_plateau_that_the_documentation_names():
    yes = correlation_loss(torch.ones(1, 4, 4), torch.ones(1, 4, 4), 0.2)
    no = correlation_loss(-torch.ones(1, 4, 4), torch.zeros(1, 4, 4), 0.2)
    assert round(float(yes), 3) == 0.313 and round(float(no), 3) == 0.693


def test_partition_finds_the_smaller_tight_group():
    generator = torch.Generator().manual_seed(0)
    owner = torch.zeros(16, dtype=torch.long)
    owner[:5] = 1
    points = F.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0]])[owner] + 0.02 * torch.randn(16, 2, generator=generator))
    found = partition((points @ points.T)[None], 0.5)
    assert found.shape == (1, 16) and torch.equal(found[0], owner.float())
    order = torch.randperm(16, generator=generator)
    assert torch.equal(partition((points @ points.T)[order][:, order][None], 0.5)[0], owner[order].float())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MODELS.build(
        dict(OPTIONS, weights=toy_tower("vit"), teacher=dict(type="TowerProxy", tap="block.-2.v"))
    ).train()


def batch():
    rng = np.random.default_rng(0)
    pictures = [torch.from_numpy(rng.integers(0, 256, (3, 64, 96), dtype=np.uint8)) for _ in range(2)]
    return pictures, [SegDataSample(), SegDataSample()]


def test_the_step_is_its_parts(model):
    pictures, samples = batch()
    losses = model.loss(pictures, samples)
    images, tower = model.images(pictures), model.tower
    state = tower.advance(tower.start(images, "exact"), -1, ("block.-3.ln_2", "block.-2.v"))
    y = state.taps["block.-3.ln_2"][:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    values = F.normalize(state.taps["block.-2.v"].transpose(1, 2).flatten(2)[:, 1:], dim=-1)
    cosines = values @ values.transpose(1, 2)
    convolutions = model.pipeline.dense.correlations
    torch.testing.assert_close(losses["loss_correlation"], correlation_loss(convolutions(y), cosines, 0.2))
    seen = torch.stack([partition(each[None]).view(1, 4, 6) for each in cosines])
    torch.testing.assert_close(losses["loss_background"], saliency_loss(convolutions.background(y), seen))
    sum(losses.values()).backward()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 4 and all(".correlations." in name for name in trained)
    assert all(p.grad.abs().sum() > 0 for p in convolutions.parameters())


def test_a_saliency_map_of_the_data_is_used(model):
    pictures, samples = batch()
    for top, sample in zip((255, 1), samples, strict=True):  # both ranges
        given = torch.zeros(1, 64, 96, dtype=torch.uint8)
        given[:, :, :48] = top
        sample.set_data(dict(gt_saliency=PixelData(data=given)))
    found = model.saliency(torch.eye(24).expand(2, -1, -1), (4, 6), samples)
    assert found.shape == (2, 1, 4, 6) and (found[..., :3] == 1).all() and (found[..., 3:] == 0).all()


def test_crops_are_whole_patches(model):
    with pytest.raises(ValueError, match="multiple of it"):
        model.loss([torch.zeros(3, 60, 64, dtype=torch.uint8)], [SegDataSample()])


def test_export_is_the_authors_format_and_inference_reads_it(model, tmp_path):
    model.export(tmp_path / "last.pt")
    state, meta = read_checkpoint_with_meta(tmp_path / "last.pt")
    assert sorted(state) == ["bkg_decoder.bias", "bkg_decoder.weight", "obj_proj.bias", "obj_proj.weight"]
    assert state["obj_proj.weight"].shape == (256, 128, 3, 3) and not meta
    image = torch.randn(1, 3, 64, 64)
    dense = CLIPDINOiser(checkpoint=tmp_path / "last.pt")
    torch.testing.assert_close(dense(model.tower, image).features, model.dense_features(image).features.detach())
    again = MODELS.build(
        dict(
            OPTIONS,
            weights=toy_tower("vit"),
            dense=dict(type="CLIPDINOiser", checkpoint=str(tmp_path / "last.pt")),
            teacher=dict(type="TowerProxy"),
        )
    )
    assert all(p.requires_grad for p in again.pipeline.dense.correlations.parameters())


def test_timm_values_are_those_of_the_last_attention(vit, monkeypatch, tmp_path):
    torch.manual_seed(0)
    name, make = "vit_tiny_patch16_224", timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: make(*a, **k | {"pretrained": False}))
    proxy = TimmValues(name)
    images = torch.randn(2, 3, 64, 96)
    found = proxy(vit, images, None)
    assert found.shape == (2, 192, 4, 6)
    seen = {}
    attention = proxy.model.blocks[-1].attn
    attention.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0]))
    plain = TimmProxy.forward(proxy, vit, images, None)
    weight, bias = attention.qkv.weight[2 * 192 :], attention.qkv.bias[2 * 192 :]
    expected = F.linear(seen["x"], weight, bias)[:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    torch.testing.assert_close(found, expected)
    assert plain.shape == found.shape and not torch.equal(plain, found)
    with pytest.raises(ValueError, match="plain ViT"):
        TimmValues("resnet18")


def test_the_teacher_is_no_part_of_the_checkpoint(monkeypatch):
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: make(*a, **k | {"pretrained": False}))
    teacher = dict(type="TimmValues", model="vit_tiny_patch16_224")
    model = MODELS.build(dict(OPTIONS, weights=toy_tower("vit"), teacher=teacher)).train().double()
    assert not any("teacher" in name for name in [*model.state_dict(), *dict(model.named_parameters())])
    held = model.teacher._held[0]
    assert not held.training and not any(p.requires_grad for p in held.parameters())
    assert next(held.parameters()).dtype == torch.float64  # it moves with the model
    assert isinstance(model.pipeline.dense.correlations, Correlations)


def test_the_smoke_config_learns(tmp_path, data):
    losses = losses_of("configs/clip_dinoiser/clip_dinoiser_training_tiny_overfit.py", tmp_path, 12)
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.02


def test_the_published_recipe_reads_pictures_and_saliency(tmp_path):
    cfg = load_config(ROOT / "configs/clip_dinoiser/clip_dinoiser_training_vitb16_laion.py")
    check_components(cfg, cfg.default_scope)
    dataset = cfg.train_dataloader.dataset.dataset
    dataset.data_root = dataset.pipeline[1].folder = str(tmp_path)
    cv2.imwrite(str(tmp_path / "n01.JPEG"), np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "n01.png"), np.repeat([[0] * 200 + [255] * 200], 300, 0))
    sample = DATASETS.build(dataset)[0]
    saliency = sample["data_samples"].gt_saliency.data
    assert sample["inputs"].shape == (3, 448, 448) and saliency.shape == (1, 448, 448)
    assert saliency.dtype == torch.uint8 and set(saliency.unique().tolist()) == {0, 255}
    model = MODELS.build(dict(cfg.model, weights="tiny", teacher=dict(type="TowerProxy"))).train()
    small = [sample["inputs"][:, :64, :64]]
    assert all(value > 0 for value in model.loss(small, [SegDataSample()]).values())
