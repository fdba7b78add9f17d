"""RegionCLIP: equations in NumPy, the detector's behavior, released names."""

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from mmengine.structures import InstanceData

from ovseg.detectors.proposals import FrozenRPN, GivenBoxes, random_boxes
from ovseg.detectors.regionclip_convert import detector_state, rpn_state
from ovseg.regions import regionclip as rc
from ovseg.regions import regionclip_losses as losses
from ovseg.registry import MODELS
from ovseg.testing.parity import compare, errors
from ovseg.testing.toys import toy_tower
from ovseg.towers import load_tower

RPN = dict(type="OwnRPN", width=16, outs=3, count=40, train_count=40)
CLASSES = ["cat", "dog", "bird"]


def boxes(count, height=128, width=160, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height])
    corner = torch.rand(count, 2, generator=generator) * size * 0.5
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * size * 0.4 + 8], 1)


def sample(count, height=128, width=160, labels=None, scale=(1.0, 1.0), **meta):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    one = DetDataSample()
    labels = torch.arange(count) % 3 if labels is None else torch.tensor(labels)
    masks = BitmapMasks(np.ones((count, height, width), np.uint8), height, width)
    one.gt_instances = InstanceData(bboxes=boxes(count, height, width), labels=labels, masks=masks)
    shape = (height, width)
    one.set_metainfo(dict(img_shape=shape, ori_shape=shape, batch_input_shape=shape, scale_factor=scale, **meta))
    return one


def model(**changes):
    torch.manual_seed(0)
    config = dict(type="RegionCLIP", weights=toy_tower("resnet"), vocabulary=CLASSES, templates="name", samples=32)
    built = MODELS.build(config | dict(proposals=RPN) | changes)
    torch.nn.init.normal_(built.roi_head.bbox_head.fc_reg.weight, std=0.01) if hasattr(built, "roi_head") else None
    return built


def run(detector, samples, mode):
    generator = torch.Generator().manual_seed(1)
    shapes = [each.metainfo["img_shape"] for each in samples]
    inputs = [torch.randint(0, 256, (3, *shape), generator=generator) for shape in shapes]
    detector.train(mode == "loss")
    data = detector.data_preprocessor(dict(inputs=inputs, data_samples=samples), mode == "loss")
    with torch.set_grad_enabled(mode == "loss"):
        return detector(**data, mode=mode)


# --- equations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["det_regionclip_region", "det_regionclip_pretrain_loss"])
def test_parity(name, goldens):
    lines = list(compare(goldens / f"{name}.npz"))
    assert lines and all(ok for _, _, ok in lines), [line for line in lines if not line[2]]


def test_nan_is_equal_to_nan_at_its_place_alone():
    nan = np.array([1.0, np.nan])
    assert errors(nan, nan)[2]
    assert not errors(np.array([np.nan, 1.0]), nan)[2]
    assert not errors(np.array([1.0, 2.0]), nan)[2]
    assert not errors(nan, np.array([1.0, 2.0]))[2]


def test_the_pool_of_one_token_is_the_attention_pool():
    tower = toy_tower("resnet")
    maps = torch.randn(3, tower.width, 4, 4)
    with torch.no_grad():
        ours, theirs = rc.first_token(tower, maps), tower.visual.attnpool(maps)
    assert rc.table_side(tower) == 4
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_chunks_or_on_the_batch():
    tower = toy_tower("resnet")
    images = torch.randn(2, 3, 100, 132)  # not whole cells: the map covers 96×128 px
    with torch.no_grad():
        res4 = rc.res_stages(tower, images)[-1]
        both = [boxes(5, 96, 128), boxes(3, 96, 128, seed=1)]
        whole, maps = rc.region_features(tower, res4, both, with_maps=True)
        parts = rc.region_features(tower, res4, both, memory=1)
        alone = rc.region_features(tower, res4[1:], both[1:])
        none, no_maps = rc.region_features(tower, res4, [torch.zeros(0, 4)] * 2, with_maps=True)
    assert res4.shape[-2:] == (6, 8) and maps.shape == (8, tower.width, 4, 4)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whole[5:], alone, rtol=1e-4, atol=1e-4)
    assert none.shape == (0, tower.embed_dim) and no_maps.shape == (0, tower.width, 4, 4)


def test_a_vit_cannot_be_cut_into_regions():
    with pytest.raises(ValueError, match="RN50/openai"):
        rc.res_stages(toy_tower("vit"), torch.randn(1, 3, 64, 64))
    with pytest.raises(ValueError, match="RegionCLIP needs an attention pool.*RN50/openai"):
        model(weights=toy_tower("vit"))


def test_logits_and_objectness():
    features, text = torch.randn(4, 8), torch.randn(3, 8)
    f, t = features.numpy(), text.numpy()
    cosines = f @ t.T / np.linalg.norm(f, axis=1)[:, None] / np.linalg.norm(t, axis=1)
    np.testing.assert_allclose(rc.region_logits(features, text), np.pad(cosines / 0.01, ((0, 0), (0, 1))), atol=1e-3)
    p, o = torch.full((2, 3), 0.25), torch.tensor([2.0, -1.0])
    sigmoid = 1 / (1 + np.exp(-o.numpy()))
    np.testing.assert_allclose(rc.with_objectness(p, o)[:, 0], np.sqrt(0.25 * sigmoid), rtol=1e-5)
    raw = rc.with_objectness(p, o, "logit")
    assert raw[0, 0] == pytest.approx(0.5**0.5) and raw[1].isnan().all()
    with pytest.raises(ValueError, match="probability or logit"):
        rc.with_objectness(p, o, "sigmoid")


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cosine(a, b, tau):
    a, b = a.double().numpy(), b.double().numpy()
    return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1) / tau


def test_losses_of_pretraining_in_numpy():
    torch.manual_seed(0)
    student, teacher, concepts = torch.randn(9, 16), torch.randn(9, 16), torch.randn(5, 16)
    keep, labels, q = losses.pseudo_labels(teacher, concepts, 0.1, 0.6)
    expected = softmax(cosine(teacher, concepts, 0.1))
    kept = expected.max(1) > 0.6
    assert 0 < kept.sum() < 9 and (keep.numpy() == kept).all()
    np.testing.assert_allclose(q, expected[kept], atol=1e-6)
    chosen, y = student[keep], expected[kept].argmax(1)
    p = softmax(cosine(chosen, concepts, 0.1))
    kl = (expected[kept] * np.log(expected[kept] / p)).sum(1).mean()
    assert float(losses.distillation(chosen, concepts, q, 0.1)) == pytest.approx(kl, rel=1e-4)
    r = softmax(cosine(chosen, concepts[y], 0.1))
    contrast = -np.log((r * (y[:, None] == y[None])).sum(1)).mean()
    assert float(losses.concept_contrast(chosen, concepts, labels, 0.1)) == pytest.approx(contrast, rel=1e-4)
    a = cosine(student[:5], concepts, 0.1)
    nce = -(np.log(np.diag(softmax(a))).mean() + np.log(np.diag(softmax(a.T))).mean()) / 2
    assert float(losses.image_text(student[:5], concepts, 0.1)) == pytest.approx(nce, rel=1e-4)
    all_kept, *_ = losses.pseudo_labels(teacher, concepts, 0.1, 2.0)
    assert all_kept.all()


def test_distillation_is_finite_where_probabilities_underflow():
    student = torch.tensor([[1.0, 0.0]], requires_grad=True)
    concepts = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    loss = losses.distillation(student, concepts, torch.tensor([[0.5, 0.5]]), 0.001)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()
    assert losses.distillation(student[:0], concepts, torch.zeros(0, 2)) == 0
    assert losses.concept_contrast(student[:0], concepts, torch.zeros(0, dtype=torch.long)) == 0


@pytest.mark.parametrize("background, gamma", [(1.0, 0.0), (0.2, 0.0), (0.2, 0.5)])
def test_cross_entropy_of_regions_in_numpy(background, gamma):
    torch.manual_seed(0)
    logits, labels = torch.randn(7, 4, requires_grad=True), torch.tensor([0, 3, 1, 3, 2, 3, 0])
    p = softmax(logits.detach().double().numpy())[np.arange(7), labels]
    w = np.where(labels.numpy() == 3, background, 1.0)
    expected = (w * (1 - p) ** gamma * -np.log(p)).sum() / (7 if gamma else w.sum())
    loss = losses.region_cross_entropy(logits, labels, background, gamma)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    sure = torch.tensor([[100.0, 0.0]], requires_grad=True)
    losses.region_cross_entropy(sure, torch.tensor([0]), background, gamma).backward()
    assert sure.grad.isfinite().all()
    assert losses.region_cross_entropy(logits[:0], labels[:0], background, gamma) == 0


def _share(rank, folder, pictures, captions):
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mine = pictures[rank].clone().requires_grad_(True)
    loss = losses.image_text(mine, captions[rank], 0.1)
    loss.backward()
    torch.save([loss.detach(), mine.grad], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_contrast_pictures_and_captions_as_one(tmp_path):
    torch.manual_seed(0)
    pictures, captions = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    mp.start_processes(_share, (str(tmp_path), pictures, captions), nprocs=2, start_method="fork")
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    whole = pictures.flatten(0, 1).requires_grad_(True)
    loss = losses.image_text(whole, captions.flatten(0, 1), 0.1)
    loss.backward()
    for own, _ in parts:
        torch.testing.assert_close(own, loss.detach())
    averaged = torch.cat([gradient for _, gradient in parts]) / 2  # as DistributedDataParallel does
    torch.testing.assert_close(averaged, whole.grad)


# --- the detector --------------------------------------------------------------------------------------------------


def test_training_reaches_what_it_should():
    detector = model(unseen=["bird"], masks=True)
    found = run(detector, [sample(3), sample(0)], "loss")
    assert {"loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"} <= set(found)
    detector.parse_losses(found)[0].backward()
    trained = {name for name, p in detector.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in detector.named_parameters() if p.requires_grad}
    visual = {name.removeprefix("tower.visual.") for name in trained if name.startswith("tower.visual.")}
    assert {name.split(".")[0] for name in visual} == {"layer2", "layer3", "layer4", "attnpool"}
    assert not any(".bn" in name or "downsample.1" in name for name in visual)
    assert not detector.tower.training and detector.roi_head.training
    assert detector.roi_head.classifier.hidden.tolist() == [False, False, True]


def test_unseen_classes_are_no_labels_and_no_negatives():
    masked = model(unseen=["bird"])
    renamed = model(unseen=["zebra"], vocabulary=["cat", "dog", "zebra"])
    ours, theirs = (float(run(each, [sample(3)], "loss")["loss_cls"].detach()) for each in (masked, renamed))
    assert np.isfinite(ours)
    torch.manual_seed(0)
    dropped = masked.without_hidden([sample(3)])[0].gt_instances
    assert dropped.labels.tolist() == [0, 1] and len(dropped.bboxes) == 2
    with pytest.raises(ValueError, match="ids 0 to 2"):
        run(masked, [sample(2, labels=[0, 7])], "loss")
    with pytest.raises(ValueError, match="unseen: wolf"):
        model(unseen=["wolf"])
    assert isinstance(theirs, float)


def test_prediction_of_a_batch_is_that_of_each_picture():
    detector = model()
    both = run(detector, [sample(2), sample(0)], "predict")
    assert all(each.pred_instances.bboxes.shape[1] == 4 for each in both)
    assert len(both[0].pred_instances) and (both[0].pred_instances.scores <= 1).all()
    assert both[0].metainfo["provenance"].weights
    alone = run(detector, [sample(2)], "predict")[0].pred_instances
    torch.testing.assert_close(both[0].pred_instances.scores, alone.scores, rtol=1e-4, atol=1e-5)


def test_permuted_words_give_permuted_labels():
    detector = model(proposals=dict(type="GivenBoxes", source="ground_truth"), setting="ground_truth")
    before = run(detector, [sample(4)], "predict")[0].pred_instances
    detector.set_classes(["bird", "cat", "dog"])
    after = run(detector, [sample(4)], "predict")[0].pred_instances
    order = torch.tensor([1, 2, 0])  # new id of each old one
    pairs = {(round(float(s), 5), int(order[label])) for s, label in zip(before.scores, before.labels, strict=True)}
    assert pairs == {(round(float(s), 5), int(label)) for s, label in zip(after.scores, after.labels, strict=True)}
    detector.set_classes(["a", "b", "c", "d", "e"])
    assert int(run(detector, [sample(4)], "predict")[0].pred_instances.labels.max()) < 5
    assert np.isfinite(float(run(detector, [sample(3)], "loss")["loss_cls"].detach()))  # training keeps its words


def test_ground_truth_boxes_come_back_in_pixels_of_the_picture():
    detector = model(proposals=dict(type="GivenBoxes", source="ground_truth"), setting="ground_truth")
    given = sample(3, scale=(2.0, 2.0))
    given.gt_instances.bboxes /= 2  # pixels of the original picture
    expected = given.gt_instances.bboxes.clone()
    found = run(detector, [given], "predict")[0].pred_instances
    best = torch.stack([found.bboxes[(found.bboxes - box).abs().sum(1).argmin()] for box in expected])
    torch.testing.assert_close(best, expected, rtol=1e-4, atol=1e-3)


def test_no_proposals_and_rows_without_a_number():
    detector = model(proposals=dict(type="GivenBoxes"), setting="zero_shot", test_cfg=dict(objectness="logit"))
    given = [sample(0), sample(0)]
    given[0].proposals = InstanceData(bboxes=torch.zeros(0, 4), scores=torch.zeros(0))
    outside = torch.tensor([[-50.0, -50.0, -10.0, -10.0], [20.0, 20.0, 20.0, 60.0]])
    given[1].proposals = InstanceData(bboxes=torch.cat([boxes(2), outside]), scores=torch.tensor([0.9, 0.2, 0.9, 0.9]))
    empty, one = (each.pred_instances for each in run(detector, given, "predict"))
    assert len(empty) == 0 and empty.bboxes.shape == (0, 4)
    assert len(one) and one.scores.isfinite().all()
    torch.testing.assert_close(one.bboxes, boxes(2)[:1].expand_as(one.bboxes))  # logit of 0.2 is negative
    with pytest.raises(ValueError, match="proposals.bboxes"):
        run(detector, [sample(1)], "predict")


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="Did you mean 'lvis'"):
        model(setting="lviss")
    with pytest.raises(ValueError, match="Did you mean 'score_thr'"):
        model(test_cfg=dict(score_th=1))
    with pytest.raises(ValueError, match="source is"):
        GivenBoxes("boxes")
    with pytest.raises(ValueError, match="0 to 5"):
        model(frozen_stages=6)


def rpn_model(stages=4):
    anchors = dict(type="AnchorGenerator", scales=[8], ratios=[1.0], strides=[4, 8, 16, 32])
    head = dict(
        type="RPNHead", in_channels=8, feat_channels=8, anchor_generator=anchors,
        loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=True), loss_bbox=dict(type="L1Loss"),
    )  # fmt: skip
    return dict(
        type="RPN",
        data_preprocessor=dict(type="DetDataPreprocessor", mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0]),
        backbone=dict(type="ResNet", depth=50, base_channels=4, num_stages=stages, style="caffe"),
        neck=dict(type="FPN", in_channels=[16, 32, 64, 128], out_channels=8, num_outs=4),
        rpn_head=head,
        train_cfg=None,
        test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=10, nms=dict(type="nms", iou_threshold=0.7), min_bbox_size=0)),
    )


def test_a_frozen_rpn_proposes_and_refuses_weights_that_do_not_fit(tmp_path):
    tower = toy_tower("resnet")
    rpn = FrozenRPN(tower, rpn_model(), count=7)
    rpn.train()
    assert not rpn.model.training and not any(p.requires_grad for p in rpn.parameters())
    found = rpn(torch.randn(1, 3, 64, 96), (), [sample(0, 64, 96)])[0]
    assert 0 < len(found.bboxes) <= 7 and ((found.scores > 0) & (found.scores < 1)).all()
    state = {name.replace("bbox_head.", "rpn_head."): value for name, value in rpn.model.state_dict().items()}
    torch.save(state, tmp_path / "rpn.pth")
    again = FrozenRPN(tower, rpn_model(), str(tmp_path / "rpn.pth"), count=7)
    torch.testing.assert_close(again(torch.ones(1, 3, 64, 96), (), [sample(0, 64, 96)])[0].bboxes,
                               rpn(torch.ones(1, 3, 64, 96), (), [sample(0, 64, 96)])[0].bboxes)  # fmt: skip
    torch.save({"backbone.conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not fit the proposal network"):
        FrozenRPN(tower, rpn_model(), str(tmp_path / "other.pth"))


# --- pretraining --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GivenBoxes", "RandomBoxes"])
def test_pretraining_begins_at_the_teacher_and_moves(kind, tmp_path):
    proposals = dict(type=kind, source="ground_truth") if kind == "GivenBoxes" else dict(type=kind, count=6)
    torch.manual_seed(0)
    pre = MODELS.build(
        dict(
            type="RegionCLIPPretraining",
            concepts=["cat", "dog", "sky", "tree"],
            vocabulary=["dog", "cat", "bird"],
            weights=toy_tower("resnet"),
            proposals=proposals,
            most=4,
            templates="name",
        )  # fmt: skip
    )
    found = run(pre, [sample(6, gt_caption="a cat"), sample(5, gt_caption="a dog under a tree")], "loss")
    assert float(found["loss_distillation"]) == pytest.approx(0, abs=1e-4)  # the student is the teacher still
    assert {"loss_contrast", "loss_image_text"} <= set(found)
    pre.parse_losses(found)[0].backward()
    assert not any("teacher" in name for name, _ in pre.named_parameters())
    with torch.no_grad():
        for p in pre.parameters():
            if p.requires_grad:
                p.sub_(1e-3 * p.grad)
    assert float(run(pre, [sample(6, gt_caption="a")] * 2, "loss")["loss_distillation"]) > 0
    named = run(pre, [sample(3), sample(0)], "predict")
    assert named[0].pred_instances.class_scores.shape == (3, 3) and len(named[1].pred_instances) == 0
    torch.testing.assert_close(named[0].pred_instances.bboxes, named[0].gt_instances.bboxes)
    pre.export(tmp_path / "tuned.safetensors")
    exported = load_tower(tmp_path / "tuned.safetensors")
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(exported(image)[0], pre.tower(image)[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="captions=False"):
        run(pre, [sample(3)], "loss")


def test_random_boxes_lie_in_the_picture():
    torch.manual_seed(0)
    found = random_boxes(200, (50, 80))
    assert (found >= 0).all() and (found[:, 2] <= 80.01).all() and (found[:, 3] <= 50.01).all()
    assert ((found[:, 2:] - found[:, :2]) >= 4.99).all()


# --- released names ------------------------------------------------------------------------------------------------


def released(tower, text=True):
    state = {f"backbone.{name}": value for name, value in tower.visual.state_dict().items()}
    if text:
        clip = {n: v for n, v in tower.clip.state_dict().items() if not n.startswith(("visual.", "attn_mask"))}
        state |= {f"lang_encoder.{name}": value for name, value in clip.items() if name != "logit_scale"}
    state["roi_heads.box_predictor.bbox_pred.weight"] = torch.randn(4, tower.embed_dim)
    state["roi_heads.box_predictor.bbox_pred.bias"] = torch.randn(4)
    state["roi_heads.box_predictor.cls_score.weight"] = torch.randn(48, tower.embed_dim)
    state["teacher_backbone.conv1.weight"] = torch.zeros(1)
    return state


def test_released_files_give_their_tower(tmp_path):
    tower, image = toy_tower("resnet", quick_gelu=True), torch.randn(1, 3, 128, 128)
    torch.save({"model": released(tower), "iteration": 3}, tmp_path / "regionclip_pretrained-cc_rn50.pth")
    found = load_tower(tmp_path / "regionclip_pretrained-cc_rn50.pth")
    with torch.no_grad():
        torch.testing.assert_close(found.visual.layer4(rc.res_stages(found, image)[-1]),
                                   tower.visual.layer4(rc.res_stages(tower, image)[-1]))  # fmt: skip
        tokens = torch.tensor([[1, 5, 7, 9] + [0] * 73])
        torch.testing.assert_close(found.clip.encode_text(tokens), tower.clip.encode_text(tokens))
    torch.save({"model": released(tower, text=False)}, tmp_path / "detector.pth")
    assert load_tower(tmp_path / "detector.pth").clip is None
    broken = {name: value for name, value in released(tower).items() if "layer4" not in name}
    torch.save({"model": broken}, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match="backbone.layer4.0.conv1.weight is missing"):
        load_tower(tmp_path / "broken.pth")


def test_detector_names_are_those_of_the_detector():
    detector = model()
    converted = detector_state(released(toy_tower("resnet")))
    own = detector.state_dict()
    assert set(converted) <= set(own)
    assert {"roi_head.bbox_head.fc_reg.weight", "tower.visual.attnpool.c_proj.weight"} <= set(converted)
    assert all(own[name].shape == value.shape for name, value in converted.items())


def test_names_of_the_proposal_network():
    config = rpn_model()
    names = FrozenRPN(toy_tower("resnet"), config).model.state_dict()
    pairs = {
        "bottom_up.stem.conv1.weight": "backbone.conv1.weight",
        "bottom_up.stem.conv1.norm.running_mean": "backbone.bn1.running_mean",
        "bottom_up.res2.0.shortcut.weight": "backbone.layer1.0.downsample.0.weight",
        "bottom_up.res4.0.shortcut.norm.bias": "backbone.layer3.0.downsample.1.bias",
        "bottom_up.res5.2.conv3.norm.weight": "backbone.layer4.2.bn3.weight",
        "bottom_up.res3.1.conv2.weight": "backbone.layer2.1.conv2.weight",
        "fpn_lateral2.weight": "neck.lateral_convs.0.conv.weight",
        "fpn_output5.bias": "neck.fpn_convs.3.conv.bias",
    }
    state = {f"offline_backbone.{old}": torch.zeros(1) for old in pairs}
    heads = {"conv": "rpn_conv", "objectness_logits": "rpn_cls", "anchor_deltas": "rpn_reg"}
    state |= {f"offline_proposal_generator.rpn_head.{old}.weight": torch.zeros(1) for old in heads}
    state["offline_proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(1)
    expected = {*pairs.values(), *(f"rpn_head.{new}.weight" for new in heads.values())}
    assert set(rpn_state(state)) == expected
    assert {name.replace("rpn_head.", "bbox_head.") for name in expected} <= set(names)
    c4 = {"backbone.stem.conv1.weight": torch.zeros(1), "proposal_generator.rpn_head.conv.conv0.weight": torch.zeros(1)}
    assert set(rpn_state(c4)) == {"backbone.conv1.weight", "rpn_head.rpn_conv.0.conv.weight"}
    with pytest.raises(ValueError, match="no proposal network"):
        rpn_state({"backbone.stem.conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="swin"):
        rpn_state({"backbone.swin.weight": torch.zeros(1), "proposal_generator.rpn_head.conv.weight": torch.zeros(1)})


def test_words_are_unit_and_background_is_zero():
    detector = model()
    text, owners = detector.embeddings(detector.vocabulary)
    torch.testing.assert_close(F.normalize(text, dim=-1), text)
    detector.roi_head.classifier.set_words(text, owners, 3)
    features = torch.randn(5, text.shape[1])
    torch.testing.assert_close(detector.roi_head.classifier(features, 100.0), rc.region_logits(features, text))
