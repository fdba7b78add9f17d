"""Words as the last classification layer of MMDetection's heads."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import ovseg  # noqa: F401
from ovseg.detectors import OpenVocabDetHead, TextLayer, set_classes
from ovseg.detectors.text_classifier import text_layers
from ovseg.registry import MODELS
from ovseg.text.encoder import TextEncoder
from ovseg.towers import load_tower
from tests.test_compat_detectors import coder, retinanet, two_stage
from tests.test_regionclip import sample as plain_sample

WORDS = ["dog", "cat|kitten", "bird"]
ALL = ["dog", "cat", "kitten", "bird"]
FOCAL = dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0)
IOU = dict(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
TRAIN = dict(assigner=IOU, sampler=dict(type="PseudoSampler"), allowed_border=-1, pos_weight=-1, debug=False)
TEST = dict(nms_pre=50, min_bbox_size=0, score_thr=0.0, nms=dict(type="nms", iou_threshold=0.5), max_per_img=10)
ANCHORS = dict(type="AnchorGenerator", octave_base_scale=4, scales_per_octave=2, ratios=[1.0], strides=[8, 16])
HUNGARIAN = [dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"), dict(type="IoUCost", iou_mode="giou", weight=2.0)]
DENSE = {
    "RetinaHead": dict(
        in_channels=8, feat_channels=8, stacked_convs=1, anchor_generator=ANCHORS, bbox_coder=coder([1.0] * 4),
        loss_cls=FOCAL, loss_bbox=dict(type="L1Loss"), train_cfg=TRAIN, test_cfg=TEST,
    ),
    "RetinaHead, softmax": dict(
        in_channels=8, feat_channels=8, stacked_convs=1, anchor_generator=ANCHORS, bbox_coder=coder([1.0] * 4),
        loss_cls=dict(type="CrossEntropyLoss"), loss_bbox=dict(type="L1Loss"), train_cfg=TRAIN, test_cfg=TEST,
    ),
    "FCOSHead": dict(
        in_channels=8, feat_channels=8, stacked_convs=1, strides=[8, 16], regress_ranges=((-1, 64), (64, 1e8)),
        norm_cfg=None, loss_cls=FOCAL, test_cfg=TEST,
    ),
    "ATSSHead": dict(
        in_channels=8, feat_channels=8, stacked_convs=1, anchor_generator=ANCHORS | dict(scales_per_octave=1),
        norm_cfg=dict(type="GN", num_groups=2), loss_cls=FOCAL, loss_bbox=dict(type="GIoULoss"), reg_decoded_bbox=True,
        train_cfg=TRAIN | dict(assigner=dict(type="ATSSAssigner", topk=4)), test_cfg=TEST,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _scope():
    with DefaultScope.overwrite_default_scope("ovseg"):
        yield


def dense(kind, words=WORDS, **options):
    torch.manual_seed(0)
    head = ConfigDict(DENSE[kind], type=kind.split(",")[0])
    return OpenVocabDetHead(head, words, templates="name", **options)


def sample(count):
    return plain_sample(count, pad_shape=(128, 160))


def levels():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 8, 128 // stride, 160 // stride, generator=generator) for stride in (8, 16))


def total(losses):
    return sum(sum(each) if isinstance(each, (list, tuple)) else each for each in losses.values())


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("background", [None, "zero", "learned", "sky", ["sky", "wall"]])
def test_a_linear_layer_in_numpy(background):
    torch.manual_seed(0)
    layer = TextLayer(torch.nn.Linear(6, 4), 4, WORDS, templates="name", background=background, scale=20.0).eval()
    x = torch.randn(2, 5, 6)
    encode = TextEncoder(load_tower(), "name")
    f = unit(x.numpy() @ layer.project.weight.detach().numpy().T)
    words = 20 * f @ encode(ALL).numpy().T
    expected = [words[..., :1], words[..., 1:3].max(-1, keepdims=True), words[..., 3:]]
    if background is None:
        expected = [each + np.log(0.01 / 0.99) for each in expected]
    elif background == "zero":
        expected.append(np.zeros((2, 5, 1)))
    elif background == "learned":
        expected.append(20 * f @ unit(layer.background_vector.detach().numpy()).T)
    else:
        stuff = encode([background] if isinstance(background, str) else background).numpy()
        expected.append((20 * f @ stuff.T).max(-1, keepdims=True))
    np.testing.assert_allclose(layer(x).detach().numpy(), np.concatenate(expected, -1), atol=2e-4)
    assert layer.out_features == 3 + (background is not None)


def test_anchors_of_a_convolution_keep_their_places():
    torch.manual_seed(0)
    layer = TextLayer(torch.nn.Conv2d(5, 2 * 3, 3, padding=1), 3, WORDS, templates="name").eval()
    x = torch.randn(1, 5, 4, 6)
    found = layer(x)
    assert found.shape == (1, 6, 4, 6)
    wide = layer.project(x).unflatten(1, (2, -1))
    for anchor in (0, 1):
        own = layer._scores(wide[:, anchor].movedim(1, -1))
        torch.testing.assert_close(found[:, 3 * anchor : 3 * anchor + 3], own.movedim(-1, 1))


@pytest.mark.parametrize("kind", DENSE)
def test_dense_heads_train_and_predict(kind):
    head = dense(kind)
    assert type(head).__name__ == kind.split(",")[0] and head.num_classes == 3
    head.init_weights()
    loss = total(head.train().loss(levels(), [sample(3), sample(0)]))
    loss.backward()
    (layer,) = text_layers(head)
    trained = {name for name, p in layer.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert loss.isfinite() and {"log_scale", "project.weight"} <= trained
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters())
    assert not any("text" in name or "query" in name for name in head.state_dict())
    found = head.eval().predict(levels(), [sample(3), sample(0)])
    assert all(0 < len(each) <= 10 and each.labels.max() < 3 and each.scores.isfinite().all() for each in found)


@pytest.mark.parametrize("kind", DENSE)
def test_unseen_words_are_no_negatives(kind):
    head, renamed = dense(kind, unseen=["bird"]), dense(kind, ["dog", "cat|kitten", "whale"], unseen=["whale"])
    renamed.load_state_dict(head.state_dict())
    ours, theirs = (total(each.train().loss(levels(), [sample(3), sample(0)])) for each in (head, renamed))
    torch.testing.assert_close(ours, theirs)
    seen = dense(kind).train()
    seen.load_state_dict(head.state_dict())
    assert not torch.allclose(total(seen.loss(levels(), [sample(3), sample(0)])), ours)
    given = sample(3)
    head.loss(levels(), [given, sample(0)])
    assert given.gt_instances.labels.tolist() == [0, 1]  # the bird is gone
    scores = head(levels())[0][0].unflatten(1, (-1, text_layers(head)[0].out_features))
    assert (scores[:, :, 2] < -9999).all() and (scores[:, :, :2] > -999).all()
    scores = head.eval()(levels())[0][0].unflatten(1, (-1, text_layers(head)[0].out_features))
    assert (scores[:, :, 2] > -999).all()


@pytest.mark.parametrize("kind", DENSE)
def test_permuted_words_permute_the_labels(kind):
    head = dense(kind).eval()
    before = head.predict(levels(), [sample(1), sample(1)])[0]
    set_classes(head, ["bird", "dog", "cat|kitten"])
    after = head.predict(levels(), [sample(1), sample(1)])[0]
    place = torch.tensor([1, 2, 0])
    torch.testing.assert_close(before.scores, after.scores, rtol=1e-4, atol=1e-6)
    assert place[before.labels].tolist() == after.labels.tolist()
    set_classes(head, ["dog"])
    assert head.num_classes == 1 and set(head.predict(levels(), [sample(1)] * 2)[0].labels.tolist()) == {0}


def detr(kind, words=WORDS, **options):
    torch.manual_seed(0)
    sigmoid = kind != "DETRHead"
    cost = dict(type="FocalLossCost" if sigmoid else "ClassificationCost", weight=1.0)
    loss = FOCAL if sigmoid else dict(type="CrossEntropyLoss", bg_cls_weight=0.1, class_weight=1.0)
    train = dict(assigner=dict(type="HungarianAssigner", match_costs=[cost, *HUNGARIAN]))
    head = dict(type=kind, embed_dims=16, loss_cls=loss, sync_cls_avg_factor=False)
    if kind == "DeformableDETRHead":
        head |= dict(num_pred_layer=2, share_pred_layer=options.pop("share", True))
    settings = dict(train_cfg=ConfigDict(train), test_cfg=ConfigDict(max_per_img=6))
    return OpenVocabDetHead(ConfigDict(head), words, templates="name", **options, **settings)


def queries(kind):
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(2, 2, 6, 16, generator=generator)
    return (hidden,) if kind == "DETRHead" else (hidden, [torch.rand(2, 6, 4, generator=generator)] * 3)


@pytest.mark.parametrize(
    "kind, share", [("DETRHead", None), ("DeformableDETRHead", True), ("DeformableDETRHead", False)]
)
def test_heads_of_queries(kind, share):
    options = {} if share is None else dict(share=share)
    head, renamed = (detr(kind, ["dog", "cat|kitten", last], unseen=[last], **options) for last in ("bird", "whale"))
    head.init_weights()
    renamed.load_state_dict(head.state_dict())
    assert len(text_layers(head)) == (2 if share is False else 1)
    rest = () if kind == "DETRHead" else (None, None)
    losses = []
    for each in (head, renamed):
        samples = [sample(3), sample(0)]
        inputs = (*queries(kind), samples) if kind == "DETRHead" else (*queries(kind), *rest, samples)
        losses.append(total(each.train().loss(*inputs)))
    torch.testing.assert_close(*losses)
    losses[0].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in head.parameters()) and losses[0].isfinite()
    found = head.eval().predict(*queries(kind), [sample(1), sample(1)])
    set_classes(head, ["bird", "dog", "cat|kitten"])
    after = head.predict(*queries(kind), [sample(1), sample(1)])
    place = torch.tensor([1, 2, 0])
    assert [place[each.labels].tolist() for each in found] == [each.labels.tolist() for each in after]


def two(masks=False, **options):
    torch.manual_seed(0)
    config = two_stage(masks)
    roi = config["roi_head"]
    roi["bbox_head"].pop("num_classes")
    options = dict(templates="name") | options
    roi["bbox_head"] = dict(type="ovseg.OpenVocabDetHead", head=roi["bbox_head"], vocabulary=WORDS, **options)
    if masks:
        roi["mask_head"]["class_agnostic"] = True
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(ConfigDict(config, _scope_="mmdet"))


def run(model, samples, mode):
    model.train(mode == "loss")
    images = [torch.randint(0, 256, (3, 128, 160), generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), mode == "loss")
    with torch.set_grad_enabled(mode == "loss"):
        return model(**data, mode=mode)


def test_a_two_stage_detector_with_masks():
    model = two(masks=True, unseen=["bird"], background="sky")
    model.init_weights()
    losses = run(model, [sample(2), sample(0)], "loss")
    loss = model.parse_losses(losses)[0]
    loss.backward()
    assert loss.isfinite() and model.roi_head.bbox_head.fc_cls.project.weight.grad.isfinite().all()
    assert model.roi_head.bbox_head.fc_reg.out_features == 4
    set_classes(model, ["whale", "dog"])
    found = run(model, [sample(2), sample(0)], "predict")
    assert model.dataset_meta["classes"] == ("whale", "dog")
    assert all(each.pred_instances.labels.max() <= 1 and len(each.pred_instances) for each in found)
    one = sample(0)
    one.proposals = InstanceData(bboxes=torch.zeros(0, 4))
    assert len(run(model, [one, one.clone()], "predict")[0].pred_instances) == 0


def test_regions_of_unseen_classes_count_for_nothing():
    head = two(unseen=["bird"]).roi_head.bbox_head.train()
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    logits[:, 2] = -torch.inf
    labels, zero = torch.tensor([0, 2, 3, 1, 2]), torch.zeros(5, 4)
    loss = head.loss(logits, zero, torch.zeros(5, 5), labels, torch.ones(5), zero, zero)["loss_cls"]
    kept = torch.tensor([0, 2, 3])
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[kept], labels[kept]))
    set_classes(head, ["dog", "cat", "cow"])
    assert (
        head.loss(logits[:, [0, 1, 3, 3]], zero, torch.zeros(5, 5), labels, torch.ones(5), zero, zero)["loss_cls"] > 0
    )


def test_a_whole_one_stage_detector():
    torch.manual_seed(0)
    config = retinanet()
    config["bbox_head"].pop("num_classes")
    words = dict(type="ovseg.OpenVocabDetHead", vocabulary=WORDS, templates="name")
    config["bbox_head"] = words | dict(head=config["bbox_head"])
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(ConfigDict(config, _scope_="mmdet"))
    model.init_weights()
    assert float(text_layers(model.bbox_head)[0].bias.detach()) == pytest.approx(np.log(0.01 / 0.99), rel=1e-4)
    model.parse_losses(run(model, [sample(2), sample(0)], "loss"))[0].backward()
    set_classes(model, ["whale", "dog", "cow", "cat"])
    assert run(model, [sample(2), sample(0)], "predict")[0].pred_instances.labels.max() <= 3


def test_heads_and_words_that_do_not_fit():
    with pytest.raises(ValueError, match="num_classes=80; leave that out"):
        OpenVocabDetHead(dict(DENSE["RetinaHead"], type="RetinaHead", num_classes=80), WORDS)
    with pytest.raises(ValueError, match="does not end in a layer that words could replace"):
        OpenVocabDetHead(
            dict(type="GFLHead", in_channels=8, anchor_generator=ANCHORS | dict(scales_per_octave=1)), WORDS
        )
    with pytest.raises(ValueError, match="no column for background"):
        dense("RetinaHead", background="zero")
    with pytest.raises(ValueError, match="unseen: whale; expected some of the names"):
        dense("RetinaHead", unseen=["whale"])
    with pytest.raises(ValueError, match="moves all boxes alike"):
        OpenVocabDetHead(dict(type="Shared2FCBBoxHead", in_channels=8, reg_class_agnostic=False), WORDS)
    with pytest.raises(ValueError, match="classifies with learned vectors"):
        set_classes(torch.nn.Linear(1, 1), WORDS)
    model = two(masks=True)
    model.roi_head.mask_head.class_agnostic = False
    with pytest.raises(ValueError, match="class_agnostic=True"):
        set_classes(model, WORDS)
