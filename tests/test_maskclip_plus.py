"""MaskCLIP+: who labels what and when, re-derived in numpy; frozen words; a run that goes on in its phase."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from ovseg.dense import DenseFeatures, MaskCLIP
from ovseg.engine.config import load_config
from ovseg.registry import MODELS, check_components
from ovseg.score import DenoisedScore
from ovseg.segmentors import MaskCLIPPlusHead, set_classes
from ovseg.segmentors.maskclip_plus_head import ASPPV2Head, FrozenWords
from ovseg.testing.toys import toy_tower
from ovseg.towers import load_tower
from tests.conftest import ROOT
from tests.smoke import losses_of

WORDS = ["cat", "dog", "grass", "sky"]
PREPROCESSOR = dict(
    type="mmseg.SegDataPreProcessor",
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size=(64, 64),
    pad_val=0,
    seg_pad_val=255,
)


@pytest.fixture(autouse=True)
def _loaded_once(monkeypatch):
    monkeypatch.setattr("ovseg.score.text_classifier.load_tower", lambda **source: tiny())


@cache
def tiny():
    return load_tower("tiny")


def student(words=WORDS, head=None, kind="EncoderDecoder"):
    head = head or dict(type="FCNHead", in_channels=32, num_convs=1, norm_cfg=dict(type="BN"), dropout_ratio=0.0)
    return dict(
        type=kind,
        backbone=dict(type="ResNet", depth=18, base_channels=4, num_stages=4, norm_cfg=dict(type="BN")),
        decode_head=dict(type="ovseg.MaskCLIPPlusHead", head=head, vocabulary=words, weights="tiny"),
        train_cfg=dict(),
        test_cfg=dict(mode="whole"),
    )


def build(**options):
    torch.manual_seed(0)
    teacher = dict(dense=dict(type="MaskCLIP"), weights=tiny(), protocol=dict(templates="photo"))
    plain = dict(type="MaskCLIPPlus", student=student(), teacher=teacher, vocabulary=WORDS)
    return MODELS.build(plain | dict(data_preprocessor=PREPROCESSOR) | options).train()


def batch(model, labels=True, size=64):
    rng = np.random.default_rng(0)
    pictures = [torch.from_numpy(rng.integers(0, 256, (3, size, size), dtype=np.uint8)) for _ in range(2)]
    samples = [SegDataSample(), SegDataSample()]
    for sample in samples if labels else ():
        known = torch.from_numpy(rng.integers(0, 4, (1, size, size)))
        known[:, :4] = 255
        sample.gt_sem_seg = PixelData(data=known)
    data = model.data_preprocessor(dict(inputs=pictures, data_samples=samples), True)
    return pictures, data["inputs"], data["data_samples"]


def learned(model, inputs, samples):
    """The labels that reach the student."""
    seen = []
    original = model.student.loss
    model.student.loss = lambda x, s: seen.append(torch.stack([e.gt_sem_seg.data[0] for e in s])) or original(x, s)
    try:
        model.loss(inputs, samples)
    finally:
        model.student.loss = original
    return seen[0]


def teacher_scores(model, pictures, classes):
    """Cosines of MaskCLIP with CLIP's own statistics, (B, |classes|, H, W), in steps of their own."""
    tower = model.teacher.pipeline.tower
    rgb = torch.stack(pictures).flip(1).float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (tower.preprocess.mean, tower.preprocess.std))
    features = MaskCLIP()(tower, (rgb - mean) / std).features
    text = model.teacher._words()[0][classes]
    cosines = torch.einsum("behw,te->bthw", F.normalize(features, dim=1), text)
    return F.interpolate(cosines, rgb.shape[2:], mode="bilinear", align_corners=False)


def test_annotation_free_labels_are_the_teachers():
    model = build()
    pictures, inputs, samples = batch(model)
    found = learned(model, inputs, samples)
    expected = teacher_scores(model, pictures, [0, 1, 2, 3]).argmax(1)
    given = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    assert (found[given == 255] == 255).all() and (given == 255).any()
    free = given != 255
    assert (found[free] == expected[free]).float().mean() > 0.999
    assert torch.equal(given, torch.stack([s.gt_sem_seg.data[0] for s in samples]))  # the batch is not changed


def test_zero_shot_keeps_real_labels_and_asks_for_unseen_ones_only():
    model = build(unseen=["sky", "dog"])
    pictures, inputs, samples = batch(model)
    found = learned(model, inputs, samples)
    given = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    unseen = (given == 1) | (given == 3)
    assert torch.equal(found[~unseen], given[~unseen])
    best = torch.tensor([1, 3])[teacher_scores(model, pictures, [1, 3]).argmax(1)]
    assert (found[unseen] == best[unseen]).float().mean() > 0.999


def test_phases_follow_the_counter_and_self_training_is_the_student_itself():
    model = build(unseen=["dog", "sky"], guided=(2, 3), self_training=(3, -1))
    pictures, inputs, samples = batch(model)
    given = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    unseen = (given == 1) | (given == 3)
    first = learned(model, inputs, samples)
    assert (first[unseen] == 255).all()  # before both phases
    second = learned(model, inputs, samples)
    assert set(second[unseen].unique().tolist()) <= {1, 3}
    model.student.eval()
    with torch.no_grad():
        metas = [dict(img_shape=inputs.shape[2:], pad_shape=inputs.shape[2:])] * 2
        logits = model.student.encode_decode(inputs, metas)
    model.student.train()
    third = learned(model, inputs, samples)
    expected = torch.where(logits[:, 1] >= logits[:, 3], 1, 3)
    assert torch.equal(third[unseen], expected[unseen]) and torch.equal(third[~unseen], given[~unseen])
    assert int(model.iteration) == 3 and model.student.training


def test_uncertain_pixels_stay_without_label():
    model = build(conf_thresh=0.6)
    pictures, inputs, samples = batch(model)
    found = learned(model, inputs, samples)
    p = np.exp(100 * teacher_scores(model, pictures, [0, 1, 2, 3]).double().numpy())
    p = (p / p.sum(1, keepdims=True)).max(1)
    given = torch.stack([sample.gt_sem_seg.data[0] for sample in samples])
    sure = torch.from_numpy(p >= 0.6)
    agree = ((found == 255) == (~sure | (given == 255))).float().mean()
    assert agree > 0.999 and 0.01 < sure.float().mean() < 0.99


def test_a_picture_without_labels_is_labeled_up_to_its_padding():
    model = build()
    _, inputs, samples = batch(model, labels=False, size=48)
    known = model.known_labels(inputs, samples)
    assert known.shape == (2, 64, 64) and (known[:, :48, :48] == -1).all()
    assert (known[:, 48:] == 255).all() and (known[:, :, 48:] == 255).all()
    assert torch.isfinite(model.loss(inputs, samples)["decode.loss_ce"])


def test_statistics_of_the_teacher_are_a_switch():
    own = build()
    pictures, inputs, _ = batch(own)
    tower, rgb = own.teacher.pipeline.tower, torch.stack(pictures).flip(1).float() / 255
    torch.testing.assert_close(own.pictures(inputs), tower.normalize(rgb), atol=1e-5, rtol=1e-5)
    protocol = dict(normalization="imagenet", templates="photo")
    other = build(teacher=dict(dense=dict(type="MaskCLIP"), weights=tiny(), protocol=protocol))
    torch.testing.assert_close(other.pictures(inputs), inputs, atol=1e-5, rtol=1e-5)  # as the student sees them
    rgb_in = build(data_preprocessor=dict(type="mmseg.SegDataPreProcessor", size=(64, 64)))
    torch.testing.assert_close(rgb_in.pictures(torch.stack(pictures).float()), tower.normalize(rgb))


def test_refined_scores_teach_through_the_scorer_that_exists():
    scorer = dict(type="DenoisedScore", prompt_denoising=0.5, key_smoothing=1.0, key_norm="positions")
    teacher = dict(
        dense=dict(type="MaskCLIP", keys=True), weights=tiny(), scorer=scorer, protocol=dict(templates="photo")
    )
    model = build(teacher=teacher, unseen=["dog", "sky"])
    _, inputs, _ = batch(model)
    tower = model.teacher.pipeline.tower
    out = MaskCLIP(keys=True)(tower, model.pictures(inputs))
    text = model.teacher._words()[0][[1, 3]]  # only the classes without labels take part
    scores = DenoisedScore(1.0, 0.5, "positions")(out, text)
    scores = F.interpolate(scores, (64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(model.teacher_labels(out, (64, 64)), torch.tensor([1, 3])[scores.argmax(1)])


def test_synonyms_and_padding_of_the_teacher():
    model = build(vocabulary=["cat|dog", "grass", "sky"], student=student(["cat|dog", "grass", "sky"]))
    model.unseen.copy_(torch.tensor([0, 1, 2]))
    features = torch.randn(1, model.teacher.pipeline.tower.embed_dim, 5, 6)
    dense = DenseFeatures(features, features.mean((2, 3)), padding=(0, 0, 4, 6))
    words = torch.einsum("behw,te->bthw", F.normalize(features, dim=1), model.teacher._words()[0])
    classes = torch.stack([words[:, :2].amax(1), words[:, 2], words[:, 3]], 1)
    whole = F.interpolate(classes, (40 + 6, 50 + 4), mode="bilinear", align_corners=False)[..., :40, :50]
    assert torch.equal(model.teacher_labels(dense, (40, 50)), whole.argmax(1))


def test_distillation_is_the_distance_of_unit_features():
    model = build(guided=None, distillation=2.0)
    _, inputs, samples = batch(model)
    seen = {}
    model.student.decode_head.conv_seg.register_forward_pre_hook(lambda m, x: seen.update(x=x[0].detach()))
    losses = model.loss(inputs, samples)
    teacher = MaskCLIP()(model.teacher.pipeline.tower, model.pictures(inputs)).features
    teacher = F.interpolate(teacher, seen["x"].shape[2:], mode="bilinear", align_corners=False).numpy()
    ours = seen["x"].numpy()
    distance = np.abs(
        ours / np.linalg.norm(ours, axis=1, keepdims=True) - teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    ).mean()
    np.testing.assert_allclose(losses["loss_distillation"].detach(), 2 * distance, rtol=1e-4)
    assert losses["decode.loss_ce"] == 0  # nothing is labeled
    losses["loss_distillation"].backward()


def test_frozen_words_are_plain_products():
    words = FrozenWords(WORDS, None, "photo")
    x = torch.randn(2, words.text.shape[1], 3, 4)
    torch.testing.assert_close(words(x), torch.einsum("behw,te->bthw", x, words.text))
    assert not list(words.parameters())
    ground = FrozenWords(["background", "cat"], None, "photo", background=True)
    unit = F.normalize(ground.background, dim=0)
    torch.testing.assert_close(ground(x)[:, 0], torch.einsum("behw,e->bhw", x, unit))
    assert [name for name, _ in ground.named_parameters()] == ["background"]
    with pytest.raises(ValueError, match="one word"):
        FrozenWords(["background|ground", "cat"], None, "photo", background=True)


@pytest.mark.parametrize("kind", ["ASPPHead", "ovseg.ASPPV2Head", "DepthwiseSeparableASPPHead"])
def test_heads_end_in_words_and_may_take_others(kind):
    extra = dict(c1_in_channels=8, c1_channels=4) if kind.startswith("Depth") else {}
    head = MaskCLIPPlusHead(
        dict(type=kind, in_channels=32, in_index=3, dilations=(1, 2), **extra), WORDS, templates="photo"
    ).eval()
    features = [torch.randn(1, c, s, s) for c, s in ((8, 16), (16, 8), (32, 8), (32, 8))]
    assert head(features).shape[:2] == (1, 4) and head.num_classes == 4
    assert isinstance(head.conv_seg, FrozenWords)
    set_classes(head, [*WORDS, "tree"])
    assert head(features).shape[1] == 5
    if isinstance(head, ASPPV2Head):
        x = sum(
            F.conv2d(features[3], c.weight, c.bias, padding=d, dilation=d)
            for c, d in zip(head.convolutions, (1, 2), strict=True)
        )
        torch.testing.assert_close(head(features), head.conv_seg(x))
    with pytest.raises(ValueError, match="channels"):
        MaskCLIPPlusHead(dict(type="FCNHead", in_channels=8, channels=16, num_convs=1), WORDS, templates="photo")


def test_any_segmentor_is_a_student_and_predicts_as_it_does():
    fcn = dict(type="FCNHead", in_channels=32, channels=8, num_convs=1, num_classes=4, norm_cfg=dict(type="BN"))
    cascade = dict(
        type="CascadeEncoderDecoder",
        num_stages=2,
        backbone=dict(type="ResNet", depth=18, base_channels=4, norm_cfg=dict(type="BN")),
        decode_head=[fcn, dict(fcn, type="OCRHead", ocr_channels=8, in_index=-1)],
        train_cfg=dict(),
        test_cfg=dict(mode="whole"),
    )
    for key in ("num_convs",):
        cascade["decode_head"][1].pop(key)
    model = build(student=cascade, guided=(1, 2), self_training=(2, -1))
    _, inputs, samples = batch(model)
    for _ in range(2):  # taught, then by itself
        assert all(torch.isfinite(v).all() for v in model.loss(inputs, samples).values())
    model.eval()
    with torch.no_grad():
        ours, theirs = model.predict(inputs), model.student.predict(inputs)
    torch.testing.assert_close(ours[0].seg_logits.data, theirs[0].seg_logits.data)


def test_state_holds_the_student_and_the_counter():
    model = build(guided=(1, 5))
    _, inputs, samples = batch(model)
    for _ in range(3):
        model.loss(inputs, samples)
    state = model.state_dict()
    assert {name.split(".")[0] for name in state} == {"student", "iteration"}
    other = build(guided=(1, 5))
    other.load_state_dict(state)
    assert int(other.iteration) == 3
    fresh = build(guided=(1, 5), reset_counter=True)
    fresh.load_state_dict(state)
    assert int(fresh.iteration) == 0
    assert not any(p.requires_grad for p in model.teacher.parameters())
    teacher = dict(dense=dict(type="MaskCLIP"), weights=toy_tower("vit"))
    assert build(teacher=teacher).double().teacher.pipeline.tower.dtype == torch.float64  # it moves with the model


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(guided=(1, 10), self_training=(9, -1)), "overlap"),
        (dict(guided=(1, -1), self_training=(4000, -1)), "overlap"),
        (dict(guided=(0, 10)), "from 1 on"),
        (dict(guided=(5, 5)), "beyond it"),
        (dict(conf_thresh=2.0), "probability"),
        (dict(unseen=["catt"]), "no class is called"),
        (dict(teacher=dict(dense=dict(type="MaskCLIP"), wieghts="tiny")), "Did you mean 'weights'"),
    ],
)
def test_mistakes_are_explained(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)


def test_another_tower_can_teach():
    model = build(teacher=dict(dense=dict(type="CATSeg"), weights=toy_tower("vit"), scorer=dict(type="CosineScore")))
    assert torch.isfinite(model.loss(*batch(model)[1:])["decode.loss_ce"])


@pytest.mark.slow
def test_the_smoke_config_learns(tmp_path, data):
    losses = losses_of("configs/maskclip_plus/maskclip_plus_tiny_overfit.py", tmp_path, 5)

    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("name", ["context59", "context59_zeroshot"])
def test_published_recipes_build_and_take_a_step(name):
    cfg = load_config(ROOT / f"configs/maskclip_plus/maskclip_plus_r101_{name}.py")
    check_components(cfg, cfg.default_scope)
    model = cfg.model
    model.student.backbone.update(depth=18, base_channels=2, stem_channels=2, init_cfg=None, norm_cfg=dict(type="BN"))
    model.student.decode_head.weights, model.teacher.weights = "tiny", tiny()
    head = model.student.decode_head["head"]
    head.in_channels = 16
    if "norm_cfg" in head:
        head.update(c1_in_channels=2, norm_cfg=dict(type="BN"))
    model.data_preprocessor.size = (64, 64)
    built = MODELS.build(model).train()
    assert len(built.unseen) == (10 if "zeroshot" in name else 59)
    assert torch.isfinite(built.loss(*batch(built)[1:])["decode.loss_ce"])
    assert built.teacher.pipeline.protocol.normalization == "weights"
