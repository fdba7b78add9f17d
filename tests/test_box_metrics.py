"""Average precision and the naming of given boxes, against cases computed by hand."""

import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from ovseg.evaluation.boxes import BoxAccuracy, OpenVocabAP
from ovseg.results.provenance import Provenance, Weights

META = dict(classes=("cat", "dog", "owl"), base_classes=("cat", "dog"), novel_classes=("owl",), dataset_name="toy")


def instances(boxes, labels, **more):
    return InstanceData(bboxes=torch.tensor(boxes).reshape(-1, 4).float(), labels=torch.tensor(labels).long(), **more)


def mask_of(boxes, side=20):
    masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


def sample(truth, found, ignored=None, **meta):
    boxes, labels, scores = found
    made = dict(
        gt_instances=instances(*truth, masks=mask_of(truth[0])),
        pred_instances=instances(boxes, labels, scores=torch.tensor(scores).float(), masks=mask_of(boxes)),
        ori_shape=(20, 20),
        img_path="toy.png",
    )
    if ignored:
        made["ignored_instances"] = instances(*ignored, masks=mask_of(ignored[0]))
    return made | meta


def ap(samples, **options):
    metric = OpenVocabAP(**options)
    metric.dataset_meta = META
    metric.process({}, samples)
    return metric.evaluate(len(samples))


A, B, C = [0, 0, 10, 10], [10, 10, 20, 20], [10, 0, 20, 10]


@pytest.mark.parametrize(
    "truth, found, ap50, base, novel",
    [
        (([A, B], [0, 2]), ([A, B], [0, 2], [0.9, 0.8]), 100, 100, 100),
        (([A, B], [0, 2]), ([A, B], [0, 1], [0.9, 0.8]), 50, 100, 0),  # the owl is called a dog
        (([A, B], [0, 2]), ([A], [0], [0.9]), 50, 100, 0),
        (([A], [0]), ([B, A], [0, 0], [0.9, 0.8]), 50, 50, float("nan")),  # precision 1/2 at every recall
        (([A], [0]), ([A, B], [0, 0], [0.9, 0.8]), 100, 100, float("nan")),
        (([A], [0]), ([], [], []), 0, 0, float("nan")),
        (([A, C], [0, 0]), ([A], [0], [0.9]), 100 * 51 / 101, 100 * 51 / 101, float("nan")),  # half of the recalls
    ],
)
def test_ap50_by_hand(truth, found, ap50, base, novel):
    scores = ap([sample(truth, found)])
    expected = np.array([ap50, base, novel])
    got = np.array([scores[f"boxes/{name}"] for name in ("AP50", "AP50_base", "AP50_novel")])
    assert np.allclose(got, expected, atol=0.01, equal_nan=True)
    assert np.isclose(scores["boxes/mask_AP50"], ap50, atol=0.01)


def test_ap_is_the_mean_over_ious():
    found = [0, 0, 10, 8]  # IoU 0.8 with A: right at 0.50, 0.55, … 0.75 and 0.80
    scores = ap([sample(([A], [0]), ([found], [0], [0.5]))])
    assert np.isclose(scores["boxes/AP"], 70, atol=0.01)


def test_recall_whatever_boxes_are_called():
    scores = ap([sample(([A, B], [0, 2]), ([A, B], [1, 1], [0.9, 0.8]))])
    assert scores["boxes/AR100"] == 0 and scores["boxes/AR100_any"] == 100


def test_ignored_instances_are_neither_missed_nor_wrong():
    both = sample(([A], [0]), ([B, A], [0, 0], [0.9, 0.8]), ignored=([B], [0]))
    assert ap([both])["boxes/AP50"] == 100


def test_an_empty_picture_counts_its_false_alarms():
    first = sample(([A], [0]), ([A], [0], [0.5]))
    second = sample(([], []), ([A], [0], [0.9]))
    assert np.isclose(ap([first, second])["boxes/AP50"], 50, atol=0.01)


def test_only_the_largest_scores_count():
    scores = ap([sample(([A], [0]), ([B, A], [0, 0], [0.9, 0.8]))], largest=1)
    assert scores["boxes/AP50"] == 0


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(pred_instances=instances([A], [0], scores=torch.tensor([float("nan")]))), "toy.png: 1 scores are not"),
        (dict(pred_instances=instances([A], [7], scores=torch.tensor([0.5]))), "labels go from 7 to 7"),
    ],
)
def test_bad_predictions(change, says):
    with pytest.raises(ValueError, match=says):
        ap([sample(([A], [0]), ([A], [0], [0.5])) | change])


def test_a_sample_without_truth():
    with pytest.raises(ValueError, match="reads gt_instances of every sample"):
        ap([dict(pred_instances=instances([A], [0], scores=torch.tensor([0.5])))])


def test_the_file_holds_scores_and_conditions(tmp_path):
    conditions = Provenance(weights=Weights("w", "123", "123"), vocabulary_hash="abc", protocol=dict(window=64))
    ap([sample(([A], [0]), ([A], [0], [0.5]), provenance=conditions)], work_dir=str(tmp_path))
    report = json.loads((tmp_path / "metrics_toy.json").read_text())
    assert (
        np.isclose(report["scores"]["AP50"], 100)
        and Provenance.from_dict(report) == conditions
        and report["images"] == 1
    )
    assert [row["AP50"] is not None for row in report["classes"]] == [True, False, False]


def accuracy(labels, class_scores, **options):
    metric = BoxAccuracy(**options)
    metric.dataset_meta = META
    truth = instances([A] * len(labels), labels)
    metric.process({}, [dict(gt_instances=truth, pred_instances=InstanceData(class_scores=torch.tensor(class_scores)))])
    return metric.evaluate(1)


def test_accuracy_by_hand():
    scores = accuracy([0, 0, 2, 1], [[3.0, 2, 1], [1.0, 2, 3], [1.0, 2, 3], [1.0, 2, 3]])
    assert scores["gt_boxes/top1"] == 50 and scores["gt_boxes/top5"] == 100
    assert scores["gt_boxes/mAcc"] == 50 and scores["gt_boxes/mAcc_base"] == 25 and scores["gt_boxes/mAcc_novel"] == 100


def test_ties_are_wrong_and_scores_are_numbers():
    assert accuracy([0, 1], [[1.0, 1, 0], [0.0, 0, 0]])["gt_boxes/top1"] == 0
    with pytest.raises(ValueError, match="1 scores are not finite"):
        accuracy([0], [[float("nan"), 1, 2]])


def test_accuracy_wants_a_score_of_every_class():
    with pytest.raises(ValueError, match=r"is \(1, 3\); got \(1, 2\)"):
        accuracy([0], [[1.0, 2.0]])


def test_unknown_groups():
    with pytest.raises(ValueError, match="novel: the dataset has no classes bee"):
        ap([sample(([A], [0]), ([A], [0], [0.5]))], novel=["bee"])
