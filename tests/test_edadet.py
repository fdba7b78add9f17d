"""EdaDet in our reading: equations in NumPy, gradient at every location, the detector's behavior."""

import numpy as np
import pytest
import torch

from ovseg.detectors.edadet import Refiner, dense_probabilities, object_loss, pooled, value_map
from ovseg.registry import MODELS
from ovseg.testing.toys import toy_tower
from tests.test_regionclip import RPN, boxes, run, sample, softmax


def model(**changes):
    torch.manual_seed(0)
    config = dict(type="EdaDet", weights=toy_tower("resnet"), vocabulary=["cat", "dog", "bird"], templates="name")
    return MODELS.build(config | dict(proposals=RPN, refiner=dict(width=16), background=["sky", "wall"]) | changes)


def test_dense_probabilities_in_numpy():
    torch.manual_seed(0)
    features, words = torch.randn(2, 8, 3, 4), torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    found = dense_probabilities(features, words, torch.tensor([0, 0, 1, 2]), 0.1).numpy()
    f = features.double().numpy().transpose(0, 2, 3, 1)
    cosines = f @ words.double().numpy().T / np.linalg.norm(f, axis=-1, keepdims=True) / 0.1
    classes = np.stack([cosines[..., :2].max(-1), cosines[..., 2], cosines[..., 3]], -1)
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), softmax(classes), atol=1e-5)


def test_the_value_map_is_the_pool_without_attention():
    tower = toy_tower("resnet")
    stage = torch.randn(1, tower.width, 3, 5)
    pool = tower.visual.attnpool
    with torch.no_grad():
        found = value_map(tower, stage)[0, :, 2, 4]
        expected = pool.c_proj.weight @ (pool.v_proj.weight @ stage[0, :, 2, 4] + pool.v_proj.bias) + pool.c_proj.bias
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_refiner_begins_at_the_frozen_map():
    torch.manual_seed(0)
    dense, finer = torch.randn(1, 8, 2, 3), torch.randn(1, 6, 4, 6)
    enlarged = torch.nn.functional.interpolate(dense, (4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(Refiner(6, 8, width=4)(dense, finer), enlarged)


def test_objects_answer_at_every_location_inside_and_nowhere_else():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    box = [torch.tensor([[16.0, 16.0, 48.0, 48.0]])]
    scores = pooled(logits.softmax(1), box, (64, 64))
    assert float(scores.sum()) == pytest.approx(1, rel=1e-5)
    loss = object_loss(scores, torch.tensor([1]), 2.0)
    right = float(scores[0, 1].detach())
    assert float(loss.detach()) == pytest.approx(-((1 - right) ** 2) * np.log(right), rel=1e-5)
    loss.backward()
    moved = logits.grad.abs().sum(1)[0] > 0
    assert moved[2:6, 2:6].all() and not moved[[0, 7]].any() and not moved[:, [0, 7]].any()
    assert object_loss(scores[:0], torch.zeros(0, dtype=torch.long)) == 0


def test_only_refiner_and_proposals_train_and_unseen_words_are_not_read():
    detector = model(unseen=["dog"])
    found = run(detector, [sample(3), sample(0)], "loss")
    detector.parse_losses(found)[0].backward()
    trained = {name.split(".")[0] for name, p in detector.named_parameters() if p.grad is not None}
    assert trained == {"refiner", "proposals"}
    words, owners, places = detector.text(training=True)
    assert owners.tolist() == [0, 1, 2, 2] and len(words) == 4 and places.tolist()[::2] == [0, 1]
    renamed = model(vocabulary=["cat", "zebra", "bird"], unseen=["zebra"])
    ours, theirs = (float(run(each, [sample(3)], "loss")["loss_object"].detach()) for each in (detector, renamed))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_batches_permutations_and_other_words():
    detector = model(proposals=dict(type="GivenBoxes", source="ground_truth"), test_cfg=dict(score_thr=0.0))
    both = run(detector, [sample(2), sample(0)], "predict")
    alone = run(detector, [sample(2)], "predict")[0].pred_instances
    assert len(both[1].pred_instances) == 0
    torch.testing.assert_close(both[0].pred_instances.scores, alone.scores, rtol=1e-4, atol=1e-5)
    detector.set_classes(["bird", "cat", "dog"])
    order = torch.tensor([1, 2, 0])
    after = run(detector, [sample(2)], "predict")[0].pred_instances
    pairs = {(round(float(s), 5), int(order[label])) for s, label in zip(alone.scores, alone.labels, strict=True)}
    assert pairs == {(round(float(s), 5), int(label)) for s, label in zip(after.scores, after.labels, strict=True)}


def test_scores_are_the_geometric_mean_times_objectness():
    detector = model(proposals=dict(type="GivenBoxes"), alpha=0.25, test_cfg=dict(score_thr=0.0))
    torch.nn.init.normal_(detector.refiner.out.weight, std=0.5)
    from mmengine.structures import InstanceData

    given = sample(1)
    given.proposals = InstanceData(bboxes=boxes(1), scores=torch.tensor([0.5]))
    found = run(detector, [given], "predict")[0].pred_instances
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 128, 160), generator=generator)
    with torch.no_grad():
        inputs = detector.data_preprocessor(dict(inputs=[image], data_samples=[given]), False)["inputs"]
        stages = detector.extract_feat(inputs)
        words, owners, _ = detector.text()
        q, p = (
            pooled(dense_probabilities(m, words, owners, 0.01), [boxes(1)], (128, 160)) for m in detector.maps(stages)
        )
    expected = (p**0.75 * q**0.25 * 0.5)[0, :3].sort(descending=True).values
    assert not torch.allclose(p, q, atol=1e-3)
    torch.testing.assert_close(found.scores, expected, rtol=1e-3, atol=1e-6)


def test_no_proposals_and_bad_settings():
    from mmengine.structures import InstanceData

    detector = model(proposals=dict(type="GivenBoxes"))
    given = sample(0)
    given.proposals = InstanceData(bboxes=torch.zeros(0, 4))
    assert len(run(detector, [given], "predict")[0].pred_instances) == 0
    with pytest.raises(ValueError, match="from 0 to 1"):
        model(alpha=2)
