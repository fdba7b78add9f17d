"""CLIPSelf: its regions and crops, the loss written out again, what trains, and the averaged tower."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import BaseDataElement, InstanceData

from ovseg.regions import pool_boxes
from ovseg.regions.clipself import cosine_loss, draw_boxes, draw_cells, fitted_crops, grid_cells, grids
from ovseg.registry import MODELS
from ovseg.testing.parity import compare
from ovseg.testing.toys import toy_tower
from ovseg.towers import load_tower
from ovseg.towers.tuning import trains
from tests.test_eva import images as eva_images
from tests.test_eva import toy_eva

TOWERS = {"vit": toy_tower, "eva": toy_eva}


def build(tower="vit", **options):
    options = dict(max_split=3, most=5) | options
    return MODELS.build(
        dict(
            type="CLIPSelf",
            dense=dict(type="CLIPSelf"),
            vocabulary=["cat", "dog"],
            weights=TOWERS[tower](),
            protocol=dict(short_side=64, window=None),
            **options,
        )
    ).train()


def batch(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pictures = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    return pictures, [BaseDataElement() for _ in pictures]


# --- regions ----------------------------------------------------------------------------------------------------------


def test_which_grids_there_are():
    assert grids(1) == [(1, 1)]
    assert grids(2) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    six = grids(6)
    assert len(six) == len(set(six)) == 24
    assert {n for m, n in six if m == 3} == {2, 3, 4, 5, 6} and {n for m, n in six if m == 6} == {3, 4, 5, 6}


def test_cells_cover_the_picture_once():
    cells = grid_cells(2, 3, (40, 90))
    expected = [[x, y, x + 30, y + 20] for y in (0, 20) for x in (0, 30, 60)]
    torch.testing.assert_close(cells, torch.tensor(expected, dtype=torch.float32))


def test_draws_follow_the_global_generator_and_reach_every_grid():
    torch.manual_seed(5)
    first = [draw_cells((60, 60), 6, 20) for _ in range(300)]
    torch.manual_seed(5)
    assert all(torch.equal(a, draw_cells((60, 60), 6, 20)) for a in first)
    assert max(len(cells) for cells in first) == 20
    shapes = {tuple((60 / (cell[2:] - cell[:2])).round().int().tolist()[::-1]) for cell in (c[0] for c in first)}
    assert shapes == set(grids(6))
    orders = {tuple(cells[:, 0].tolist()) for cells in first if len(cells) == 4 and cells[:, 2].max() == 60}
    assert len(orders) > 3  # in random order


def test_given_boxes_are_cut_and_chosen_by_area():
    boxes = torch.tensor(
        [[0, 0, 4, 4], [0, 0, 4, 20], [-10, 5, 30, 200], [50, 50, 40, 60], [float("nan"), 0, 9, 9], [5, 5, 25, 25]]
    )
    found = draw_boxes(boxes, (60, 80), sides=(8, 25))
    assert sorted(found.tolist()) == [[0, 0, 4, 20], [5, 5, 25, 25]]
    assert sorted(draw_boxes(boxes, (60, 80)).tolist())[0] == [0, 0, 4, 20]
    assert [0, 5, 30, 60] in draw_boxes(boxes, (60, 80)).tolist()
    assert len(draw_boxes(boxes[5:].repeat(30, 1), (60, 80), most=7)) == 7
    assert draw_boxes(boxes[:1], (60, 80)).tolist() == [[0, 0, 80, 60]]
    assert draw_boxes(torch.zeros(0, 4), (60, 80)).tolist() == [[0, 0, 80, 60]]


def test_crops_keep_their_aspect_on_black():
    picture = torch.zeros(3, 40, 60)
    picture[0, 10:20, 20:60] = 1
    wide, square = fitted_crops(picture, torch.tensor([[20.0, 10, 60, 20], [20, 10, 30, 20]]), 16)
    assert (wide[:, :6] == 0).all() and (wide[:, 10:] == 0).all() and (wide[0, 6:10] > 0.99).all()
    assert (square[0] > 0.99).all() and (square[1:] == 0).all()
    (enlarged,) = fitted_crops(picture, torch.tensor([[20.0, 10, 30, 20]]), 16, enlarge=2.0)
    torch.testing.assert_close(enlarged, fitted_crops(picture, torch.tensor([[15.0, 5, 35, 25]]), 16)[0])
    same = fitted_crops(picture, torch.tensor([[0.0, 0, 40, 40]]), 40)[0]
    torch.testing.assert_close(same, picture[:, :, :40])
    for box in ([5.0, 5, 5, 5], [59.9, 39.9, 60, 40], [0, 0, 0.1, 40], [70, 70, 90, 90]):
        assert fitted_crops(picture, torch.tensor([box]), 16).isfinite().all()
    assert fitted_crops(picture, torch.zeros(0, 4), 16).shape == (0, 3, 16, 16)


def test_cosine_loss():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 7))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(cosine_loss(torch.from_numpy(a), torch.from_numpy(b)), 1 - cosines.mean())
    assert cosine_loss(torch.zeros(0, 7), torch.zeros(0, 7)) == 0


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tower", TOWERS)
def test_the_loss_follows_its_equation(tower):
    model = build(tower, crop_batch=3)
    with torch.no_grad():  # a student that is no longer the teacher
        for p in model.tower.parameters():
            p.add_(0.02 * torch.randn_like(p) if p.requires_grad else 0)
    pictures, samples = batch((48, 64), (48, 64))
    torch.manual_seed(1)
    found = model.loss(pictures, samples)["loss_cosine"]
    torch.manual_seed(1)
    boxes = [draw_cells((48, 64), 3, 5) for _ in pictures]
    cosines, original = [], TOWERS[tower]()
    for picture, each in zip(pictures, boxes, strict=True):
        rgb = picture.flip(0)[None] / 255
        maps = model.pipeline.dense(model.tower, model.tower.normalize(rgb)).features
        pooled = pool_boxes(maps / maps.norm(dim=1, keepdim=True), [each], (48, 64))
        for feature, box in zip(pooled, each, strict=True):
            crop = fitted_crops(rgb[0], box[None], original.image_size)
            cosines.append(F.cosine_similarity(feature, original(original.normalize(crop))[0][0], dim=0))
    torch.testing.assert_close(found, 1 - torch.stack(cosines).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tower", TOWERS)
def test_blocks_train_and_the_teacher_does_not(tower):
    model = build(tower)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names and all("blocks" in name for name in names) and not trains(model.tower, "text")
    assert not any(
        "teacher" in name for name in (*model.state_dict(), *dict(model.named_modules())) if name != "teacher"
    )
    x = eva_images((32, 32))
    before, start = model.teacher(x)[0], model.tower(x)[0].detach()
    pictures, samples = batch((48, 64), (32, 32))
    losses, optimizer = [], torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(8):
        torch.manual_seed(0)
        loss = model.loss(pictures, samples)["loss_cosine"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    assert torch.equal(model.teacher(x)[0], before) and (model.tower(x)[0] - start).abs().max() > 1e-3


def test_what_a_pipeline_padded_is_no_region():
    model = build()
    pictures, samples = batch((50, 70), (64, 64))
    samples[1].set_metainfo(dict(img_shape=(40, 64)))
    rgb, sizes = model.pictures(pictures, samples)
    assert rgb.shape == (2, 3, 64, 80) and sizes == [(50, 70), (40, 64)]
    assert (rgb[0, :, 50:] == 0).all() and (rgb[0, :, :, 70:] == 0).all()
    torch.testing.assert_close(rgb[0, 0, :50, :70], pictures[0][2] / 255)
    for _ in range(20):
        boxes = model.boxes(samples[1], sizes[1])
        assert boxes[:, 3].max() <= 40 and boxes[:, 2].max() <= 64


def test_boxes_of_the_samples():
    model = build(regions="boxes", sides=(4, 100))
    pictures, samples = batch((64, 64), (64, 64), (64, 64))
    truth = InstanceData(bboxes=torch.tensor([[8.0, 8, 40, 40]]))
    samples[0].gt_instances = truth
    samples[1].gt_instances, samples[1].proposals = truth, InstanceData(bboxes=torch.tensor([[0.0, 0, 16, 32]]))
    samples[2].gt_instances = InstanceData(bboxes=torch.zeros(0, 4))
    found = [model.boxes(sample, (64, 64)).tolist() for sample in samples]
    assert found == [[[8, 8, 40, 40]], [[0, 0, 16, 32]], [[0, 0, 64, 64]]]
    assert model.loss(pictures, samples)["loss_cosine"].isfinite()
    with pytest.raises(ValueError, match="neither proposals nor gt_instances"):
        model.loss(*batch((64, 64)))


@pytest.mark.parametrize(
    "options", [dict(regions="gird"), dict(max_split=0), dict(share=1.2), dict(enlarge=0.5), dict(most=0)]
)
def test_settings_out_of_range(options):
    with pytest.raises(ValueError, match="regions are grid or boxes"):
        build(**options)


# --- the averaged tower -----------------------------------------------------------------------------------------------


def moved(model):
    with torch.no_grad():
        for p in model.tower.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)) if p.requires_grad else 0)
    return model


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("tuning", ["Blocks", "Everything", "LoRA"])
def test_weights_are_averaged_and_training_goes_on(tower, tuning):
    if (tower, tuning) == ("eva", "LoRA"):
        pytest.skip("LoRA tunes torch's attention")
    model, x = moved(build(tower, tuning=[dict(type=tuning)])), eva_images((32, 32))
    student, teacher = model.tower(x)[0].detach(), model.teacher(x)[0]
    torch.testing.assert_close(model.averaged(1.0)(x)[0], student, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.averaged(0.0)(x)[0], teacher, atol=1e-5, rtol=1e-4)
    mixed = model.averaged(0.7).visual.state_dict()
    ends = model.averaged(1.0).visual.state_dict(), model.averaged(0.0).visual.state_dict()
    for name, value in mixed.items():
        torch.testing.assert_close(value, 0.7 * ends[0][name] + 0.3 * ends[1][name], atol=1e-6, rtol=1e-5)
    assert torch.equal(model.tower(x)[0].detach(), student)


@pytest.mark.parametrize("tower", TOWERS)
def test_an_exported_tower_is_weights(tower, tmp_path):
    model, x = moved(build(tower, share=0.4)), eva_images((32, 32))
    model.export(tmp_path / "mine.safetensors")
    loaded = load_tower(tmp_path / "mine.safetensors")
    torch.testing.assert_close(loaded(x)[0], model.averaged()(x)[0], atol=1e-5, rtol=1e-5)
    assert loaded.card.name == "mine" and loaded.card.hash != model.tower.card.hash


def test_settings_that_travel_with_weights_become_those_of_the_run(tmp_path):
    options = dict(weights="tiny", protocol=dict(short_side=96, window=None))
    model = MODELS.build(dict(type="CLIPSelf", dense=dict(type="CLIPSelf"), vocabulary=["cat"], **options))
    model.export(tmp_path / "mine.safetensors")
    before, after = model.tower.card.protocol, load_tower(tmp_path / "mine.safetensors").card.protocol
    assert before["window"] == 64 and after == before | dict(short_side=96, window=None)


def test_added_tokens_cannot_be_averaged():
    model = build(tuning=[dict(type="VisualPrompt", length=2)])
    with pytest.raises(ValueError, match="visual_prompts"):
        model.averaged()


# --- the authors' outputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai_vit", "eva_vit"])
@pytest.mark.parametrize(
    "absent, needed",
    [
        ((), ()),
        (("crops",), ("global_of_crops0_1_student",)),
        (("masks", "teacher_crop_features"), ("mask_pool", "loss_cosine")),
        (("image",), ("dense", "roi_features", "mask_pool", "loss_cosine")),
        (("normed_boxes_valid",), ("roi_features", "mask_pool", "loss_cosine")),
    ],
)
def test_parity_with_any_of_the_arrays(goldens, tmp_path, kind, absent, needed):
    """``absent`` inputs are left out, and with them the expected arrays that need them."""
    gone = {*absent, *(f"out/{name}" for name in needed)}
    arrays = {k: v for k, v in np.load(goldens / f"det_clipself_{kind}.npz").items() if k not in gone}
    np.savez(tmp_path / "part.npz", **arrays)
    lines = list(compare(tmp_path / "part.npz"))
    assert lines and all(ok for _, _, ok in lines), lines
