"""PixelCLIP's training: balanced clusters, merged masks, the slow teacher, learned names, masks from files."""

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import multiprocessing as mp

from ovseg.engine.config import load_config
from ovseg.registry import DATASETS, DENSE, MODELS, TRANSFORMS, check_components
from ovseg.segmentors.conv_head import ConvHead
from ovseg.segmentors.mask_clusters import (
    assign,
    covered_loss,
    masks_of_ids,
    merged,
    proxy_clusters,
    region_means,
)
from ovseg.segmentors.momentum import Momentum
from ovseg.segmentors.pseudo_words import PseudoWords
from ovseg.segmentors.sinkhorn import sinkhorn
from ovseg.testing.toys import toy_tower
from ovseg.towers import load_tower
from tests.conftest import ROOT
from tests.smoke import losses_of

OPTIONS = dict(type="PixelCLIPTraining", dense=dict(type="PixelCLIP"), vocabulary=["cat", "dog"])
SMALL = dict(clusters=6, mask_size=24)


def sinkhorn_numpy(q, iterations):
    regions, clusters = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(0, keepdims=True) / clusters
        q = q / q.sum(1, keepdims=True) / regions
    return q * regions


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_sinkhorn_follows_its_equations(scale):
    logits = scale * (2 * torch.rand(9, 4, generator=torch.Generator().manual_seed(0)) - 1).double()
    found = sinkhorn(logits.softmax(-1), 3)
    np.testing.assert_allclose(found, sinkhorn_numpy(logits.softmax(-1).numpy(), 3), rtol=1e-9)
    torch.testing.assert_close(found.sum(1), torch.ones(9).double())
    order = torch.randperm(4)
    torch.testing.assert_close(sinkhorn(logits[:, order].softmax(-1), 3), found[:, order])
    balanced = sinkhorn(logits.softmax(-1), 500)
    torch.testing.assert_close(balanced.sum(0), torch.full((4,), 9 / 4).double(), rtol=1e-2, atol=0)


def test_sinkhorn_without_regions_or_affinity():
    assert sinkhorn(torch.zeros(0, 5)).shape == (0, 5)
    q = sinkhorn(torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0]]))
    assert torch.isfinite(q).all() and (q[:, 2] == 0).all()
    torch.testing.assert_close(q.sum(1), torch.ones(2))


def _share(rank, address, rows, out):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=3)
    torch.save(sinkhorn(rows[rank]), f"{out}/{rank}.pt")
    dist.destroy_process_group()


def test_three_processes_assign_as_one_even_if_one_has_no_regions(tmp_path):
    affinity = torch.rand(7, 4, generator=torch.Generator().manual_seed(1)) + 0.01
    rows = [affinity[:5], affinity[5:5], affinity[5:]]
    mp.start_processes(_share, (str(tmp_path / "meet"), rows, str(tmp_path)), nprocs=3, start_method="fork")
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(3)]
    torch.testing.assert_close(torch.cat(parts), sinkhorn(affinity))


def test_means_merging_and_loss_follow_their_equations():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(2, 5, 8, 8))).float()
    masks = [torch.from_numpy(rng.random((3, 8, 8)) < 0.4), torch.zeros(2, 8, 8, dtype=torch.bool)]
    masks[1][0, 2:5, 1:4] = True
    masks[1][1, 0, 0] = True  # one pixel: dropped
    regions = region_means(features, masks, (8, 8))
    assert regions.image_index.tolist() == [0, 0, 0, 1]
    kept = [*masks[0].numpy(), masks[1][0].numpy()]
    expected = [features[o].numpy()[:, m].mean(1) for o, m in zip(regions.image_index, kept, strict=True)]
    np.testing.assert_allclose(regions.means, expected, atol=1e-5)

    clusters = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    unit = np.asarray(expected) / np.linalg.norm(expected, axis=1, keepdims=True)
    wanted = 7 * unit @ (clusters.numpy() / np.linalg.norm(clusters.numpy(), axis=1, keepdims=True)).T
    np.testing.assert_allclose(assign(regions.means, clusters, 7), wanted, atol=1e-4)

    target = merged(regions, torch.tensor([2, 2, 0, 1]), 4).numpy()
    np.testing.assert_array_equal(target[0, 2], kept[0] | kept[1])
    np.testing.assert_array_equal(target[0, 0], kept[2])
    np.testing.assert_array_equal(target[1, 1], kept[3])
    assert target[0, 1].sum() == target[0, 3].sum() == target[1, 0].sum() == 0

    logits = rng.normal(size=(2, 4, 8, 8)).astype(np.float32)
    every = np.log1p(np.exp(logits)) - logits * target
    inside = np.broadcast_to(target.max(1, keepdims=True) > 0, every.shape)
    found = covered_loss(torch.from_numpy(logits), torch.from_numpy(target))
    np.testing.assert_allclose(found, every[inside].mean(), rtol=1e-5)


def test_the_head_reads_every_class_by_itself():
    head = ConvHead()
    assert sum(p.numel() for p in head.parameters()) == 118145  # as published
    cost = torch.rand(2, 3, 4, 6) * 2 - 1
    out = head(cost)
    assert out.shape == (2, 3, 16, 24)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(head(cost[:, order]), out[:, order])
    state = {f"head.{name}": value for name, value in head.state_dict().items()} | {"sem_seg_head.x": torch.zeros(1)}
    torch.testing.assert_close(ConvHead.from_state(state)(cost), out)
    with pytest.raises(ValueError, match="no head of PixelCLIP"):
        ConvHead.from_state({"visual.proj": torch.zeros(1)})


def test_momentum_steps_reads_and_leaves_the_module_alone():
    tower = toy_tower("vit")
    weight = tower.visual.transformer.resblocks[0].attn.in_proj_weight
    weight.requires_grad_(True)
    slow, start = Momentum(tower, 0.9, "visual."), weight.detach().clone()
    image = torch.randn(1, 3, 64, 64)
    before = tower(image)[0].detach()
    with torch.no_grad():
        weight += 0.1
    torch.testing.assert_close(slow.evaluate(tower, lambda tower, x: tower(x)[0], image), before)
    assert tower.visual.transformer.resblocks[0].attn.in_proj_weight is weight and weight.requires_grad
    slow.update(tower)
    torch.testing.assert_close(slow.values()["visual.transformer.resblocks.0.attn.in_proj_weight"], start + 0.01)
    assert list(slow.state_dict()) == ["visual/transformer/resblocks/0/attn/in_proj_weight"]


def test_pseudo_words_made_of_a_real_word_are_that_word(vit):
    words = PseudoWords(vit, count=2, length=1)
    tokenizer = __import__("open_clip").SimpleTokenizer()
    table = vit.clip.token_embedding.weight.detach()
    with torch.no_grad():
        for row, name in zip(words.prompt_tokens, ("cat", "dog"), strict=True):
            row.copy_(table[tokenizer.encode(name)])
    sentences = tokenizer([f"A photo of a {name} in the scene" for name in ("cat", "dog")])
    torch.testing.assert_close(words(vit), vit.clip.encode_text(sentences).float())
    assert not vit.clip.token_embedding._forward_hooks
    words(vit).sum().backward()
    assert words.prompt_tokens.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="Take a shorter template"):
        PseudoWords(vit, length=80)


def batch(ids=None, seed=0):
    rng = np.random.default_rng(seed)
    pictures = [torch.from_numpy(rng.integers(0, 256, (3, 64, 96), dtype=np.uint8)) for _ in range(2)]
    samples = [SegDataSample(), SegDataSample()]
    if ids is not None:
        for sample in samples:
            sample.set_data(dict(gt_regions=PixelData(data=ids)))
    return pictures, samples


def halves():
    ids = torch.zeros(2, 64, 96, dtype=torch.long)
    ids[0, :32], ids[0, 32:, :40] = 1, 2
    ids[1, 20:50, 30:90] = 3
    return ids


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MODELS.build(dict(OPTIONS, weights=toy_tower("vit"), **SMALL)).train()


def test_the_step_is_its_parts(model):
    pictures, samples = batch(halves())
    losses = model.loss(pictures, samples)
    images = model.images(pictures)
    features = model.dense_features(images).features  # before any step the teacher is the student
    masks = [masks_of_ids(halves(), (24, 24))] * 2
    assert [len(m) for m in masks] == [3, 3]
    regions = region_means(features, masks, (24, 24))
    classes = model.names(model.tower)
    chosen = sinkhorn(assign(regions.means, classes, 100.0).softmax(-1)).argmax(1)
    cosines = torch.einsum("behw,ke->bkhw", F.normalize(features, dim=1), F.normalize(classes, dim=1))
    expected = covered_loss(model.head(cosines), merged(regions, chosen, 6))
    torch.testing.assert_close(losses["loss_mask"], expected)

    losses["loss_mask"].backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    tower = {name for name in trained if name.startswith("pipeline.tower.")}
    assert all(".attn." in name or name.endswith("positional_embedding") for name in tower)
    assert {n.split(".")[0] for n in trained - tower} == {"names", "head"}
    assert not any("clip.transformer" in name for name in tower)  # the text side is frozen


def test_without_any_mask_the_step_is_zero_and_finite(model):
    model.zero_grad()
    loss = model.loss(*batch(torch.zeros(1, 64, 96, dtype=torch.long)))["loss_mask"]
    loss.backward()
    assert loss == 0
    assert all(torch.isfinite(p.grad).all() and (p.grad == 0).all() for p in model.parameters() if p.requires_grad)
    with pytest.raises(ValueError, match="a sample has none"):
        model.loss(*batch())


def test_proxy_makes_masks_where_there_are_none():
    torch.manual_seed(0)
    tower = toy_tower("vit")
    proxy = dict(proxy=dict(type="TowerProxy"), proxy_masks=3, resolution=80)
    model = MODELS.build(OPTIONS | SMALL | dict(weights=tower) | proxy).train()
    pictures, samples = batch()
    masks = model.masks(model._resized(model.images(pictures)), samples)
    assert all(m.shape == (3, 24, 24) and m.sum(0).eq(1).all() for m in masks)
    assert model.loss(pictures, samples)["loss_mask"] > 0
    assert not any(name.startswith("proxy") for name in model.state_dict())
    features = torch.cat([torch.ones(2, 3, 4), -torch.ones(2, 3, 4)], 1) + 0.01 * torch.randn(2, 6, 4)
    ids = proxy_clusters(features, 2)
    assert (ids[:3] == ids[0, 0]).all() and (ids[3:] == 1 - ids[0, 0]).all()


def test_the_student_view_is_what_the_student_sees(model):
    pictures, samples = batch(halves())
    plain = model.loss(pictures, samples)["loss_mask"]
    for sample, other in zip(samples, batch(seed=1)[0], strict=True):
        sample.set_data(dict(student_view=PixelData(data=other)))
    assert model.loss(pictures, samples)["loss_mask"] != plain


def test_export_is_a_plain_clip(model, tmp_path, picture):
    with torch.no_grad():
        model.tower.visual.transformer.resblocks[1].attn.out_proj.weight.mul_(1.5)
    model.export(tmp_path / "student.safetensors")
    tower = load_tower(tmp_path / "student.safetensors")
    model.eval()
    plain = MODELS.build(
        dict(type="OpenVocabSegmentor", weights=tower, dense=dict(type="PixelCLIP"), vocabulary=["cat", "dog"])
    )
    ours, theirs = (
        m.pipeline.decode(m.pipeline.encode(picture), m.encoder()(["cat", "dog"]), [0, 1]) for m in (model, plain)
    )
    torch.testing.assert_close(ours.scores, theirs.scores)
    assert torch.equal(ours.labels, theirs.labels)
    assert tower.card.name == "student" and plain.pipeline.protocol.size == (320, 320)


def test_released_checkpoints_load_as_weights(tmp_path):
    """The layout read in the authors' code: student, teacher, names and head in one file."""
    clip, prefix, state = toy_tower("vit").clip, "sem_seg_head.predictor.clip_model.", {}
    for name, tensor in clip.state_dict().items():
        if name.endswith("attn.in_proj_weight"):
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                state[prefix + name.replace("in_proj", f"{part}_proj")] = third.clone()
        elif not name.endswith("attn_mask"):
            state[prefix + name] = tensor
    state |= {f"teacher_encoder.visual.{name}": t + 1 for name, t in clip.visual.state_dict().items()}
    state |= {f"head.{name}": t for name, t in ConvHead().state_dict().items()}
    state["sem_seg_head.predictor.prompt_tokens"] = torch.zeros(64, 4, 64)
    torch.save({"model": state}, tmp_path / "pixelclip.pth")
    tower = load_tower(tmp_path / "pixelclip.pth", quick_gelu=False)
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(tower(image)[0], toy_tower("vit")(image)[0])


def test_scores_are_cosines_of_enlarged_features(vit):
    out = DENSE.build(dict(type="PixelCLIP"))(vit, torch.randn(1, 3, 64, 64))
    from ovseg.score import EnlargedScore

    text = F.normalize(torch.randn(2, 48), dim=1)
    fine = F.interpolate(out.features, (64, 64), mode="bilinear", align_corners=False)
    expected = torch.einsum("behw,te->bthw", F.normalize(fine, dim=1), text)
    torch.testing.assert_close(EnlargedScore()(out, text), expected)


@pytest.mark.slow
def test_the_smoke_config_learns(tmp_path, data):
    losses = losses_of("configs/pixelclip/pixelclip_tiny_overfit.py", tmp_path, 4)
    assert losses[-1] < losses[0] - 0.05


# --- maps in the dataset pipeline ------------------------------------------------------------------------------------


def loaded(folder, suffix, field="gt_regions"):
    image = np.zeros((40, 60, 3), np.uint8)
    transform = TRANSFORMS.build(dict(type="LoadMaps", folder=str(folder), suffix=suffix, field=field))
    return transform(dict(img=image, img_path="somewhere/a.jpg", seg_fields=[]))


def test_maps_from_every_kind_of_file(tmp_path):
    from pycocotools import mask as coco

    masks = np.zeros((3, 40, 60), bool)
    masks[0, :20], masks[1, 10:30, :30], masks[2, 35:, 50:] = True, True, True
    np.savez(tmp_path / "a.npz", masks=masks)
    codes = coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    codes = [dict(code, counts=code["counts"].decode()) for code in codes]
    (tmp_path / "a.json").write_text(json.dumps(dict(annotations=[dict(segmentation=code) for code in codes])))
    for suffix in (".npz", ".json"):
        layers = loaded(tmp_path, suffix)["gt_regions"]
        assert layers.shape == (40, 60, 2)  # masks 1 and 2 overlap
        for number, mask in enumerate(masks, 1):
            np.testing.assert_array_equal((layers == number).any(-1), mask)
    ids = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
    np.save(tmp_path / "a.npy", ids.astype(np.int64))
    cv2.imwrite(str(tmp_path / "a.png"), ids)
    for suffix in (".npy", ".png"):
        np.testing.assert_array_equal(loaded(tmp_path, suffix)["gt_regions"], ids)


def test_bad_maps_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((40, 61), int))
    (tmp_path / "a.json").write_text("{}")
    np.savez(tmp_path / "a.npz", other=np.zeros(1))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    for suffix, words in ((".npy", "of their own size"), (".json", "SA-1B"), (".npz", "masks"), (".png", "channels")):
        with pytest.raises(ValueError, match=words):
            loaded(tmp_path, suffix)
    with pytest.raises(FileNotFoundError, match="folder and suffix"):
        loaded(tmp_path, ".tif")


def test_regions_follow_the_picture_through_mmseg(picture):
    """Regions made of colors are the same after resizing, cropping and flipping as made of the result."""
    ids = (picture[..., 0] > 127).astype(np.int64)
    flat = np.repeat(ids[..., None] * 255, 3, 2).astype(np.uint8)
    kinds = [
        dict(type="MakeRegions", source=lambda rgb: (rgb[..., 0] > 127).astype(np.int64)),
        dict(type="mmseg.Resize", scale=(130, 90), keep_ratio=True),
        dict(type="mmseg.RandomCrop", crop_size=(50, 70)),
        dict(type="mmseg.RandomFlip", prob=1.0),
        dict(type="StrongView"),
        dict(type="PackMapInputs", fields=("gt_regions", "student_view", "gt_saliency")),
    ]
    np.random.seed(0)
    results = dict(img=flat, img_path="x", img_shape=flat.shape[:2], ori_shape=flat.shape[:2], seg_fields=[])
    for kind in kinds:
        results = TRANSFORMS.build(kind)(results)
    sample = results["data_samples"]
    assert sample.gt_regions.data.shape == (1, 50, 70) and sample.gt_regions.data.dtype == torch.int64
    torch.testing.assert_close(sample.gt_regions.data[0], (results["inputs"][0] > 127).long() + 1)
    assert sample.student_view.data.shape == (3, 50, 70) and sample.student_view.data.dtype == torch.uint8
    assert "gt_saliency" not in sample


def test_the_published_recipe_reads_pictures_and_masks_of_sa1b(tmp_path):
    from pycocotools import mask as coco

    cfg = load_config(ROOT / "configs/pixelclip/pixelclip_vitb16_sa1b.py")
    check_components(cfg, cfg.default_scope)
    dataset = cfg.train_dataloader.dataset.dataset
    dataset.data_root = dataset.pipeline[1].folder = str(tmp_path)
    masks = np.zeros((300, 400, 2), np.uint8)
    masks[:200, :, 0], masks[150:, :, 1] = 1, 1
    codes = [dict(code, counts=code["counts"].decode()) for code in coco.encode(np.asfortranarray(masks))]
    (tmp_path / "sa_1.json").write_text(json.dumps(dict(annotations=[dict(segmentation=code) for code in codes])))
    cv2.imwrite(str(tmp_path / "sa_1.jpg"), np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    sample = DATASETS.build(dataset)[0]
    assert sample["inputs"].shape == (3, 640, 640)
    regions, view = sample["data_samples"].gt_regions.data, sample["data_samples"].student_view.data
    assert regions.shape == (2, 640, 640) and view.shape == (3, 640, 640)
    assert {1} <= set(regions[0].unique().tolist()) <= {0, 1} and set(regions[1].unique().tolist()) <= {0, 2}
    model = MODELS.build(dict(cfg.model, weights="tiny", resolution=64, mask_size=64)).train()
    assert model.loss([sample["inputs"]], [sample["data_samples"]])["loss_mask"] > 0
    assert model.names.prompt_tokens.shape == (64, 4, 128) and model.scale == 100
