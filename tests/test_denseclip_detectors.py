"""DenseCLIP's detectors: targets and loss of the score maps in NumPy, training and prediction."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict

from ovseg.detectors.denseclip import box_score_loss, box_targets
from ovseg.engine.config import load_config
from ovseg.registry import MODELS, check_components
from ovseg.testing.toys import toy_tower
from tests.conftest import ROOT
from tests.test_compat_detectors import neck, preprocessor, retinanet, two_stage
from tests.test_regionclip import sample as plain_sample

WORDS = ["cat", "old sofa", "traffic light"]
CONFIGS = [p for p in sorted((ROOT / "configs/denseclip").glob("*.py")) if "rcnn" in p.stem or "retinanet" in p.stem]


def sample(count):
    return plain_sample(count, pad_shape=(128, 160))


def model(kind="RetinaNet", tower="resnet", words=WORDS, **changes):
    torch.manual_seed(0)
    config = retinanet() if kind == "RetinaNet" else two_stage(masks=True)
    widths = [128] * 4 if tower == "vit" else [64, 128, 256, 512]
    widths[2 if tower == "vit" else 3] += len(words)
    config |= dict(
        type=f"ovseg.DenseCLIP{kind}",
        backbone=dict(weights=toy_tower(tower)),
        data_preprocessor=preprocessor(pad_mask=True) | dict(type="mmdet.DetDataPreprocessor"),
        neck=neck(5) | dict(in_channels=widths),
        vocabulary=words,
        context_decoder=dict(width=16, heads=2, layers=1),
    )
    if kind == "RetinaNet":
        config["bbox_head"]["anchor_generator"]["strides"] = [4, 8, 16, 32, 64]
    return MODELS.build(ConfigDict(config | changes))


def run(detector, samples, mode):
    detector.train(mode == "loss")
    images = [torch.randint(0, 256, (3, 128, 160), generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    data = detector.data_preprocessor(dict(inputs=images[: len(samples)], data_samples=samples), mode == "loss")
    with torch.set_grad_enabled(mode == "loss"):
        return detector(**data, mode=mode)


def test_targets_are_boxes():
    boxes = [torch.tensor([[4.0, 8.0, 15.9, 20.0], [0.0, 0.0, 3.0, 3.0], [8.0, 0.0, 60.0, 12.0]]), torch.zeros(0, 4)]
    labels = [torch.tensor([1, 0, 1]), torch.zeros(0, dtype=torch.long)]
    found = box_targets(boxes, labels, 3, (6, 8)).numpy()
    expected = np.zeros((2, 3, 6, 8))
    expected[0, 1, 2:5, 1:3] = 1
    expected[0, 1, 0:3, 2:8] = 1  # beyond the grid nothing, and the box within one cell is left out
    np.testing.assert_array_equal(found, expected)


def test_the_loss_counts_cells_in_boxes_alone():
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 3, 6, 8), torch.zeros(2, 3, 6, 8)
    targets[0, 1, 1:4, 2:5] = targets[0, 2, 3:5, 2:7] = 1
    x, t = logits.double().numpy(), targets.numpy()
    each = -(t * np.log(1 / (1 + np.exp(-x))) + (1 - t) * np.log(1 - 1 / (1 + np.exp(-x))))
    inside = t.max(1, keepdims=True).repeat(3, 1) > 0
    assert float(box_score_loss(logits, targets)) == pytest.approx(each[inside].mean(), rel=1e-5)
    logits.requires_grad_()
    box_score_loss(logits, targets).backward()
    assert torch.equal(logits.grad != 0, torch.tensor(inside))
    nothing = box_score_loss(logits, torch.zeros(2, 3, 6, 8))
    assert float(nothing) == 0 and nothing.requires_grad


@pytest.mark.parametrize("kind, tower", [("RetinaNet", "resnet"), ("MaskRCNN", "resnet"), ("RetinaNet", "vit")])
def test_trains_also_with_an_empty_picture_and_predicts(kind, tower):
    detector = model(kind, tower)
    losses = run(detector, [sample(3), sample(0)], "loss")
    total, values = detector.parse_losses(losses)
    assert total.isfinite() and values["loss_score"] > 0
    total.backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    for part in ("contexts", "gamma", "context_decoder", "backbone", "neck"):
        grads = [p.grad for n, p in detector.named_parameters() if n.startswith(part) and p.grad is not None]
        assert any(grad.abs().sum() > 0 for grad in grads), part
    assert all(p.grad is None for p in detector.text_encoder.parameters())
    assert detector.parse_losses(run(detector, [sample(0), sample(0)], "loss"))[0].isfinite()
    for each in run(detector, [sample(2), sample(0)], "predict"):
        found = each.pred_instances
        assert (
            found.bboxes.shape == (len(found), 4) and found.scores.isfinite().all() and each.provenance.vocabulary_hash
        )
        assert kind == "RetinaNet" or found.masks.shape == (len(found), 128, 160)


def test_score_maps_stand_behind_the_channels_of_one_level():
    detector = model().eval()
    images = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        levels, score = detector.prompted_levels(images, 1 / detector.tau)
        *plain, _ = detector.backbone(images)
    assert [level.shape[1] for level in levels] == [64, 128, 256, 512 + 3]
    torch.testing.assert_close(levels[3], torch.cat([plain[3], score / 0.07], 1))
    assert score.abs().max() <= 1.001


def test_permuted_words_permute_the_score_maps():
    images, order = torch.randn(1, 3, 128, 160), [2, 0, 1]
    one = model().eval()
    other = model(words=[WORDS[i] for i in order]).eval()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        ours, theirs = (each.prompted_levels(images)[1] for each in (one, other))
    torch.testing.assert_close(ours[:, order], theirs, rtol=1e-4, atol=1e-5)


def test_heads_and_necks_that_do_not_fit():
    with pytest.raises(ValueError, match="the vocabulary has 2 classes and the bbox_head num_classes=3"):
        model(words=WORDS[:2])
    with pytest.raises(ValueError, match=r"with 3 score maps at level 3 this backbone gives \[64, 128, 256, 515\]"):
        model(neck=neck(5) | dict(in_channels=[64, 128, 256, 512]))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_configs(path):
    cfg = load_config(path)
    check_components(cfg, cfg.default_scope)
    if cfg.model.backbone.weights == "tiny":
        assert set(MODELS.build(cfg.model).heads().values()) == {94}
