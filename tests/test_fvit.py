"""F-VLM and F-ViT: one pass of a frozen tower, losses, scores in NumPy, the detector's behavior."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from ovseg.dense.base import to_grid
from ovseg.dense.family import LastBlock
from ovseg.detectors.frozen_tower import FrozenTower
from ovseg.detectors.fvit_parts import merged
from ovseg.engine.checkpoints import stored_names
from ovseg.engine.config import load_config
from ovseg.regions.pooling import pool_boxes
from ovseg.regions.regionclip import first_token
from ovseg.registry import MODELS, check_components
from ovseg.testing.toys import toy_tower
from ovseg.text.encoder import TextEncoder
from tests.conftest import ROOT
from tests.test_eva import toy_eva
from tests.test_regionclip import boxes, run, sample

SMALL = dict(
    neck=dict(out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, conv_out_channels=16, fc_out_channels=32, num_shared_convs=1, num_shared_fcs=1),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=60), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(max_per_img=30), rcnn=dict(score_thr=0.0)),
)
MASKS = dict(mask_roi_extractor=dict(out_channels=16), mask_head=dict(in_channels=16, conv_out_channels=8, num_convs=1))


def model(kind="vit", masks=False, **changes):
    torch.manual_seed(0)
    config = dict(type="FViT", weights=toy_tower(kind), vocabulary=["cat", "dog", "bird"], templates="name")
    parts = merged(SMALL, dict(roi_head=MASKS)) if masks else SMALL
    return MODELS.build(config | parts | dict(masks=masks) | changes)


def given(detector, count, **options):
    """A sample with as many proposals."""
    one = sample(count)
    one.proposals = InstanceData(bboxes=boxes(count), scores=torch.ones(count))
    return one


def logits_of(detector, count):
    """Logits (R, K + 1) of the region head, V, and the boxes of a sample with proposals."""
    one = given(detector, count)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        image = torch.randint(0, 256, (3, 128, 160), generator=generator)
        x = detector.extract_feat(detector.data_preprocessor(dict(inputs=[image], data_samples=[one]))["inputs"])
        rois = F.pad(boxes(count), (1, 0))
        return detector.roi_head._bbox_forward(x, rois)["cls_score"], x[-1]


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# --- the tower -------------------------------------------------------------------------------------------------------


def test_levels_and_map_come_from_one_pass(monkeypatch):
    tower = toy_tower("vit")
    images = torch.randn(2, 3, 64, 96)
    backbone = FrozenTower(tower, scales=(1, 1, 1), out_indices=(0, 1, 2)).eval()
    calls = []
    start = tower.start
    monkeypatch.setattr(tower, "start", lambda *a, **k: calls.append(1) or start(*a, **k))
    levels, seen = backbone(images)
    assert len(calls) == 1
    with torch.no_grad():
        state = start(images, "exact")
        for index in (0, 1):
            state = tower.advance(state, index + 1)
            torch.testing.assert_close(levels[index], to_grid(state.x[:, 1:], state.grid))
        block, x = tower.blocks[2], state.x
        y = x + block.out(block.qkv(block.ln_1(x))[2])
        y = y + block.ffn(y)
        torch.testing.assert_close(levels[2], to_grid(y[:, 1:], state.grid), rtol=1e-4, atol=1e-5)
        dense = to_grid(tower.project(y)[:, 1:], state.grid)
    torch.testing.assert_close(seen, F.normalize(dense, dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dense", ["Vanilla", "SCLIP", "NACLIP", "GEM", "ClearCLIP", "CLIPSurgery"])
def test_any_extractor_makes_the_map(dense):
    tower, images = toy_tower("vit"), torch.randn(1, 3, 64, 64)
    backbone = FrozenTower(tower, dict(type=dense)).eval()
    levels, seen = backbone(images)
    with torch.no_grad():
        alone = F.normalize(backbone.extractor(tower, images).features, dim=1)
    torch.testing.assert_close(seen, alone, rtol=1e-4, atol=1e-5)
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    if dense == "Vanilla":  # the last level is then the plain output of the last block
        with torch.no_grad():
            plain = tower.advance(tower.start(images, backbone.extractor.positions), 3)
        torch.testing.assert_close(levels[3], F.max_pool2d(to_grid(plain.x[:, 1:], (4, 4)), 2), rtol=1e-4, atol=1e-5)


def test_windows_are_read_alone_and_averaged():
    tower, images = toy_tower("vit"), torch.randn(2, 3, 64, 96)
    parts = dict(scales=(1, 1), out_indices=(0, 2))
    whole, apart = (FrozenTower(tower, window=w, window_stride=s, **parts).eval() for w, s in ((None, None), (64, 32)))
    first, second = whole(images[..., :64]), whole(images[..., 32:])
    levels, seen = apart(images)
    for index in range(2):
        left, right = first[0][index], second[0][index]
        both = torch.cat([left[..., :2], (left[..., 2:] + right[..., :2]) / 2, right[..., 2:]], -1)
        torch.testing.assert_close(levels[index], both, rtol=1e-4, atol=1e-5)
    overlap = F.normalize(first[1][..., 2:] + second[1][..., :2], dim=1)
    torch.testing.assert_close(seen[..., 2:4], overlap, rtol=1e-4, atol=1e-5)
    one = FrozenTower(tower, window=128, **parts).eval()
    torch.testing.assert_close(one(images)[1], whole(images)[1])


def test_eva_towers_too():
    tower, images = toy_eva(), torch.randn(1, 3, 64, 96)
    backbone = FrozenTower(tower, scales=(1, 2), out_indices=(0, len(tower.blocks) - 1)).eval()
    levels, seen = backbone(images)
    with torch.no_grad():
        first = tower.advance(tower.start(images, "exact"), 1)
        alone = F.normalize(backbone.extractor(tower, images).features, dim=1)
    torch.testing.assert_close(levels[0], to_grid(first.x[:, 1:], first.grid), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen, alone, rtol=1e-4, atol=1e-5)


def test_regions_of_a_resnet_go_through_the_attention_pool():
    tower = toy_tower("resnet")
    backbone = FrozenTower(tower).eval()
    levels, seen = backbone(torch.randn(1, 3, 128, 160))
    assert [level.shape[1] for level in levels] == backbone.channels and seen is levels[-1]
    assert not list(p for p in backbone.parameters() if p.requires_grad)
    found = backbone.regions(seen, [boxes(3)], (128, 160))
    with torch.no_grad():
        expected = first_token(tower, pool_boxes(seen, [boxes(3)], (128, 160), 4))
    torch.testing.assert_close(found, expected)
    whole = torch.tensor([[0.0, 0.0, 128.0, 128.0]])
    with torch.no_grad():
        images = torch.randn(1, 3, 128, 128)  # on its native grid the pool of the whole picture is CLIP's embedding
        region = backbone.regions(backbone(images)[1], [whole], (128, 128))
        torch.testing.assert_close(F.cosine_similarity(region, tower(images)[0]), torch.ones(1), rtol=0.05, atol=0.05)


def test_pictures_blocks_and_scales_that_do_not_exist():
    tower = toy_tower("vit")
    with pytest.raises(ValueError, match="pad_size_divisor=32"):
        FrozenTower(tower)(torch.randn(1, 3, 72, 64))
    for wrong in (dict(out_indices=(0, 1, 2, 3)), dict(scales=(1, 3)), dict(scales=()), dict(out_indices=(0,))):
        with pytest.raises(ValueError, match="out_indices names one of the blocks 0 to 2 for each"):
            FrozenTower(tower, **wrong)
    with pytest.raises(ValueError, match="whole patches"):
        FrozenTower(tower, window=50)
    with pytest.raises(ValueError, match="settings of a ViT"):
        FrozenTower(toy_tower("resnet"), dense=dict(type="Vanilla"))


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, masks", [("vit", True), ("resnet", False)])
def test_all_but_the_tower_trains_also_with_an_empty_picture(kind, masks):
    detector = model(kind, masks, unseen=["dog"], background="learned")
    before = {name: value.clone() for name, value in detector.tower.state_dict().items()}
    losses = run(detector, [sample(3), sample(0)], "loss")
    names = {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "acc"} | ({"loss_mask"} if masks else set())
    assert set(losses) == names
    total = detector.parse_losses(losses)[0]
    assert total.isfinite()
    total.backward()
    for name, parameter in detector.named_parameters():
        inside = ".tower." in name
        assert parameter.requires_grad != inside
        assert (parameter.grad is None) == inside and (inside or parameter.grad.isfinite().all()), name
    assert all(torch.equal(value, before[name]) for name, value in detector.tower.state_dict().items())
    assert not detector.tower.training and not any(".tower." in name for name in stored_names(detector))
    nothing = detector.parse_losses(run(detector, [sample(0), sample(0)], "loss"))[0]
    assert nothing.isfinite()


def test_unseen_words_are_no_negatives_and_their_objects_are_left_out():
    detector = model(unseen=["dog"])
    run(detector, [sample(3)], "loss")  # sets the words of training
    logits, _ = logits_of(detector.train(), 3)
    assert torch.isinf(logits[:, 1]).all() and logits[:, [0, 2, 3]].isfinite().all()
    renamed = model(vocabulary=["cat", "zebra", "bird"], unseen=["zebra"])
    torch.manual_seed(1)
    ours = run(detector, [sample(3)], "loss")
    torch.manual_seed(1)
    theirs = run(renamed, [sample(3)], "loss")
    for name in ours:  # whatever the hidden word is, and although its objects are in the truth
        torch.testing.assert_close(detector.parse_losses({f"loss_{name}": ours[name]})[0].detach(),
                                   detector.parse_losses({f"loss_{name}": theirs[name]})[0].detach())  # fmt: skip
    assert torch.isfinite(logits_of(detector.eval(), 3)[0]).all()


def test_the_weight_of_background():
    losses = []
    for weight in (1.0, 0.5):
        head = model(background_weight=weight).roi_head.bbox_head
        logits, labels = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 3, 3, 2])
        zero = torch.zeros(6, 4)
        losses.append(head.loss(logits, zero, torch.zeros(6, 5), labels, torch.ones(6), zero, zero)["loss_cls"])
    each = -np.log(softmax(logits.numpy())[np.arange(6), labels])
    for loss, weight in zip(losses, (1.0, 0.5), strict=True):
        assert float(loss) == pytest.approx((np.where(labels == 3, weight, 1.0) * each).sum() / 6, rel=1e-5)


# --- prediction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["zero", "learned", "background", ["sky", "wall"]])
def test_scores_in_numpy(background):
    every = merged(SMALL["test_cfg"], dict(rcnn=dict(nms=dict(iou_threshold=1.0))))
    detector = model(vocabulary=["cat|kitten", "dog", "bird"], unseen=["dog"], background=background, test_cfg=every)
    found = run(detector, [given(detector, 4)], "predict")[0].pred_instances
    logits, seen = logits_of(detector, 4)
    encoder = TextEncoder(detector.tower, "name")
    text = encoder(["cat", "kitten", "dog", "bird"]).numpy()
    regions = pool_boxes(seen, [boxes(4)], (128, 160)).numpy()
    regions /= np.linalg.norm(regions, axis=1, keepdims=True)
    if background == "zero":
        rest = np.zeros((4, 1))
    elif background == "learned":
        vector = detector.roi_head.bbox_head.fc_cls.background_vector.detach().numpy()
        rest = regions @ (vector / np.linalg.norm(vector)).T
    else:
        rest = regions @ encoder([background] if isinstance(background, str) else background).numpy().T
    words = regions @ text.T
    classes = np.concatenate([words[:, :2].max(1, keepdims=True), words[:, 2:], rest.max(1, keepdims=True)], 1)
    q, p = softmax(75 * classes), softmax(logits.numpy())
    share = np.array([0.1, 0.8, 0.1, 0.1])
    expected = (p ** (1 - share) * q**share)[:, :3]
    kept = found.scores.numpy()
    assert len(kept) == 12  # every proposal for every class
    np.testing.assert_allclose(np.sort(kept), np.sort(expected.ravel()), rtol=1e-3, atol=1e-6)
    detector.roi_head.mixture["vlm"] = False
    alone = run(detector, [given(detector, 4)], "predict")[0].pred_instances
    np.testing.assert_allclose(np.sort(alone.scores.numpy()), np.sort(p[:, :3].ravel()), rtol=1e-3, atol=1e-6)


def test_shapes_batches_and_pictures_without_proposals():
    detector = model(masks=True)
    both = run(detector, [sample(2), sample(0)], "predict")
    for each in both:
        found = each.pred_instances
        assert 0 < len(found) <= 100 and found.bboxes.shape == (len(found), 4)
        assert found.masks.shape == (len(found), 128, 160) and found.masks.dtype == torch.bool
        assert (found.scores >= 0).all() and (found.scores <= 1).all() and each.provenance.weights
    alone = run(detector, [sample(2)], "predict")[0].pred_instances
    torch.testing.assert_close(both[0].pred_instances.scores, alone.scores, rtol=1e-3, atol=1e-5)
    found = [each.pred_instances for each in run(detector, [given(detector, 0), given(detector, 2)], "predict")]
    assert len(found[0]) == 0 and found[0].masks.shape[0] == 0 and len(found[1]) > 0
    assert len(run(detector, [given(detector, 0)], "predict")[0].pred_instances) == 0


def test_boxes_are_those_of_the_original_picture():
    detector = model()
    one, two = given(detector, 2), given(detector, 2)
    two.set_metainfo(dict(scale_factor=(2.0, 2.0), ori_shape=(64, 80)))
    full, half = (run(detector, [each], "predict")[0].pred_instances for each in (one, two))
    torch.testing.assert_close(full.bboxes / 2, half.bboxes, rtol=1e-4, atol=1e-3)


def test_other_words_at_run_time():
    detector = model(unseen=["dog"])
    before = run(detector, [given(detector, 3)], "predict")[0].pred_instances
    detector.set_classes(["bird", "cat", "dog"])
    after = run(detector, [given(detector, 3)], "predict")[0].pred_instances
    place = torch.tensor([1, 2, 0])
    pairs = {(round(float(s), 5), int(place[k])) for s, k in zip(before.scores, before.labels, strict=True)}
    assert pairs == {(round(float(s), 5), int(k)) for s, k in zip(after.scores, after.labels, strict=True)}
    hash_before = detector.provenance.vocabulary_hash
    detector.set_classes(["whale", "cat"])
    found = run(detector, [given(detector, 3)], "predict")[0]
    assert detector.roi_head.base.tolist() == [False, True, True] and found.pred_instances.labels.max() <= 1
    assert detector.provenance.vocabulary_hash != hash_before
    assert run(detector, [sample(3)], "loss")["loss_cls"].isfinite()  # training keeps its own words


def test_statistics_of_pictures():
    own, imagenet = model(), model(statistics="imagenet")
    assert own.data_preprocessor.mean.flatten().tolist() == pytest.approx(
        [255 * value for value in own.tower.preprocess.mean]
    )
    assert imagenet.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])


def test_settings_that_do_not_do():
    for wrong in (dict(alpha=1.2), dict(statistics="none"), dict(background=None)):
        with pytest.raises(ValueError, match="FViT: statistics are"):
            model(**wrong)
    with pytest.raises(ValueError, match="num_cls_fcs"):
        model(roi_head=merged(SMALL["roi_head"], dict(bbox_head=dict(num_cls_fcs=0))))
    with pytest.raises(ValueError, match="unseen: horse"):
        model(unseen=["horse"])


def test_merged():
    own = dict(a=dict(type="A", x=1, y=dict(z=2)), b=[1, 2])
    assert merged(own, dict(a=dict(y=dict(z=3)), b=[3])) == dict(a=dict(type="A", x=1, y=dict(z=3)), b=[3])
    assert merged(own, dict(a=dict(type="B")))["a"] == dict(type="B") and own["a"]["y"] == dict(z=2)


def test_transforms_of_the_published_recipes():
    """Boxes are MMDetection's, so the transforms inside of others must be, too."""
    from mmdet.structures.bbox import HorizontalBoxes

    for name, side in (("fvit_vitb16_coco", 640), ("fvit_vitl14_lvis", 896)):
        dataset = load_config(ROOT / f"configs/fvit/{name}.py").train_dataloader.dataset.dataset
        pipeline = dataset.get("pipeline") or dataset.dataset.pipeline
        with DefaultScope.overwrite_default_scope("ovseg"):
            transforms = Compose([each for each in pipeline if "Load" not in each["type"]])
        entry = dict(img=np.zeros((100, 160, 3), np.uint8), img_shape=(100, 160), ori_shape=(100, 160))
        entry |= dict(gt_bboxes=HorizontalBoxes(torch.tensor([[0.0, 0.0, 160.0, 100.0]])))
        entry |= dict(gt_bboxes_labels=np.array([1]), gt_ignore_flags=np.zeros(1, bool), img_id=1, img_path="a.jpg")
        assert transforms(entry)["inputs"].shape == (3, side, side)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/fvit").glob("*.py")), ids=lambda p: p.stem)
def test_configs(path):
    cfg = load_config(path)
    check_components(cfg, cfg.default_scope)
    if cfg.model.weights == "tiny":
        detector = MODELS.build(cfg.model)
        assert detector.train_vocabulary.names and detector.roi_head.bbox_head.num_classes == 94
    assert set(cfg.model.unseen if not isinstance(cfg.model.unseen, str) else [cfg.model.unseen])


def test_the_default_map_is_the_value_path():
    tower, images = toy_tower("vit"), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = LastBlock(relations=("identity",), positions="exact")(tower, images).features
    seen = FrozenTower(tower)(images)[1]
    torch.testing.assert_close(seen, F.normalize(expected, dim=1), rtol=1e-4, atol=1e-5)
