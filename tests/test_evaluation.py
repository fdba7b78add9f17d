"""OpenVocabIoU against a derivation in numpy, its file, and the same numbers from two processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.files import write_json
from ovseg.registry import METRICS
from ovseg.results.provenance import Provenance, Weights

K = 6
META = dict(classes=tuple("abcdef"), dataset_name="toy", groups=dict(first=[0, 1], absent=[5]))
PROVENANCE = Provenance(
    "sclip", weights=Weights("w0"), vocabulary_hash="v0", protocol={"window": 224}, fingerprint="abc"
)


def toy_images(count=7, seed=0):
    """(prediction, label) pairs of different sizes; class 5 occurs nowhere, class 4 in predictions only."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shape = rng.integers(5, 20, 2)
        label = rng.choice([0, 1, 2, 3, 255], shape, p=[0.4, 0.3, 0.15, 0.05, 0.1])
        noise = rng.random(shape) < 0.3
        yield np.where(noise, rng.integers(0, 5, shape), np.where(label == 255, 4, label)), label


def sample(prediction, label, **meta):
    wrap = {"data": torch.as_tensor(prediction)[None]}, {"data": torch.as_tensor(label)[None]}
    return dict(pred_sem_seg=wrap[0], gt_sem_seg=wrap[1], img_path="toy.png", **meta)


def metric(**kwargs):
    built = METRICS.build(dict(type="OpenVocabIoU", **kwargs))
    built.dataset_meta = META
    return built


def run(built, images, **meta):
    for pair in images:
        built.process({}, [sample(*pair, **meta)])
    return built.evaluate(len(built.results))


def by_numpy(images):
    """IoU and accuracy per class in percent and the overall accuracy, from one confusion matrix."""
    matrix = np.zeros((K, K), np.int64)
    for prediction, label in images:
        keep = label != 255
        np.add.at(matrix, (label[keep], prediction[keep]), 1)
    hit = np.diag(matrix).astype(float)
    with np.errstate(invalid="ignore"):
        iou = 100 * hit / (matrix.sum(0) + matrix.sum(1) - hit)
        accuracy = 100 * hit / matrix.sum(1)
    return iou, accuracy, 100 * hit.sum() / matrix.sum()


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_derivation(tmp_path, seed):
    images = list(toy_images(seed=seed))
    got = run(metric(work_dir=str(tmp_path)), images, provenance=PROVENANCE)
    iou, accuracy, overall = by_numpy(images)
    assert np.isnan(iou[5]) and iou[4] == 0 and np.isnan(accuracy[4])
    assert got["mIoU"] == pytest.approx(np.nanmean(iou), abs=0.0051)
    assert got["mAcc"] == pytest.approx(np.nanmean(accuracy), abs=0.0051)
    assert got["aAcc"] == pytest.approx(overall, abs=0.0051)
    assert got["mIoU_first"] == pytest.approx(iou[:2].mean(), abs=0.0051) and np.isnan(got["mIoU_absent"])
    report = json.loads((tmp_path / "metrics_toy.json").read_text())
    assert report["scores"]["mIoU"] == pytest.approx(np.nanmean(iou), abs=1e-9)
    assert report["scores"]["mIoU_absent"] is None and report["classes_scored"] == 5 and report["images"] == 7
    assert [row["IoU"] for row in report["classes"][:5]] == pytest.approx(list(iou[:5]), abs=1e-9)
    assert report["classes"][5] == dict(name="f", IoU=None, Acc=None, label_pixels=0)
    assert Provenance.from_dict(report) == PROVENANCE
    assert [p.name for p in tmp_path.iterdir()] == ["metrics_toy.json"]


def test_seen_and_unseen_classes_and_their_harmonic_mean():
    images = list(toy_images())
    iou, *_ = by_numpy(images)
    scores = run(metric(unseen=["b", "e"]), images)
    seen, unseen = np.nanmean(iou[[0, 2, 3, 5]]), np.nanmean(iou[[1, 4]])
    assert scores["mIoU_seen"] == pytest.approx(seen, abs=0.006)
    assert scores["mIoU_unseen"] == pytest.approx(unseen, abs=0.006)
    assert scores["hIoU"] == pytest.approx(2 / (1 / seen + 1 / unseen), abs=0.006)
    built = metric()
    built.dataset_meta = META | dict(unseen=("a",))
    assert "hIoU" in run(built, images) and "hIoU" not in run(metric(), images)
    with pytest.raises(ValueError, match="no classes z"):
        run(metric(unseen=["z"]), images)


def test_equal_to_mmsegs_metric():
    from mmseg.evaluation import IoUMetric

    images = list(toy_images())
    reference = IoUMetric()
    reference.dataset_meta = META
    ours, theirs = run(metric(groups={}), images), run(reference, images)
    assert list(ours) == list(theirs) and list(ours.values()) == pytest.approx(list(theirs.values()), abs=0.0101)


def test_counts_stay_exact_beyond_float32():
    built = metric(groups={})
    big = 2**24
    counts = [torch.tensor([n, 0, 0, 0, 0, 0]) for n in (big, big + 1, big, big + 1)]
    one = [torch.tensor([1, 0, 0, 0, 0, 0]) for _ in range(4)]
    exact = built.total_area_to_metrics(*(sum(pair) for pair in zip(counts, one, strict=True)))
    assert exact["IoU"][0] == (big + 1) / (big + 2) and exact["IoU"].dtype == np.float64


@pytest.mark.parametrize(
    "prediction, label, said",
    [
        ([[0, 1]], [[0, 6]], r"label map holds \[6\].*6 classes are 0 to 5.*reduce_zero_label"),
        ([[0, 9]], [[0, 1]], r"prediction map holds \[9\]"),
        ([[0, 1]], [[0, -1]], r"label map holds \[-1\]"),
        ([[0, 1]], [[0, 1, 1]], "differ in size"),
    ],
)
def test_maps_out_of_range_are_errors(prediction, label, said):
    with pytest.raises(ValueError, match=f"toy.png: .*{said}"):
        metric().process({}, [sample(prediction, label)])


def test_one_score_has_one_protocol():
    built = metric()
    built.process({}, [sample([[0]], [[0]], provenance=PROVENANCE)])
    with pytest.raises(ValueError, match="other conditions"):
        built.process({}, [sample([[0]], [[0]], provenance=replace(PROVENANCE, vocabulary_hash="v1"))])


def test_wrong_groups_and_lost_images():
    with pytest.raises(ValueError, match=r"Group 'x' should list class ids from 0 to 5; got \[6\]"):
        run(metric(groups=dict(x=[1, 6])), toy_images())
    built = metric()
    built.process({}, [sample([[0]], [[0]])])
    with pytest.raises(RuntimeError, match="1 images were scored, but the dataset has 2"):
        built.evaluate(2)


def test_unknown_argument():
    with pytest.raises(ValueError, match="no argument 'group'. Did you mean 'groups'"):
        metric(group={})


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, dict(x=np.float64("nan"), y=(1, np.int64(2)), z=np.float32(0.5)))
    assert json.loads(path.read_text()) == dict(x=None, y=[1, 2], z=0.5)

    class Broken:
        def __str__(self):
            raise OSError("disk")

    with pytest.raises(OSError):
        write_json(path, dict(x=Broken()))
    assert json.loads(path.read_text())["z"] == 0.5 and len(list(path.parent.iterdir())) == 1


def two_processes(rank: int, folder: str, device: str, batch: int):
    """One of two gloo processes: its share of seven toy images through mmengine's sampler, evaluator and metric."""
    import torch.distributed as dist
    from mmengine.dataset import DefaultSampler
    from mmengine.evaluator import Evaluator

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    images = list(toy_images())
    sampler = DefaultSampler(images, shuffle=False, round_up=True)
    assert len(sampler) * 2 == len(images) + 1, "this test wants a repeated image"
    evaluator = Evaluator(metric(work_dir=folder, collect_device=device))
    evaluator.dataset_meta = META
    for share in torch.utils.data.BatchSampler(sampler, batch, drop_last=False):
        evaluator.process([sample(*images[i], provenance=PROVENANCE) for i in share], {})
    scores = evaluator.evaluate(len(images))
    Path(folder, f"scores_{rank}.json").write_text(json.dumps(scores))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("device, batch", [("gpu", 2), ("cpu", 1)])
def test_two_processes_give_the_numbers_of_one(tmp_path, device, batch):
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | dict(PYTHONPATH=f"{root}:{root / 'tests'}", OMP_NUM_THREADS="1")
    code = "import sys, test_evaluation as t; t.two_processes(int(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4]))"
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(tmp_path), device, str(batch)],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [job.communicate(timeout=300)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], errors
    expected = run(metric(work_dir=str(tmp_path / "one")), toy_images(), provenance=PROVENANCE)
    for rank in range(2):
        got = json.loads((tmp_path / f"scores_{rank}.json").read_text())
        np.testing.assert_equal(got, dict(expected))
    one, two = ((tmp_path / folder / "metrics_toy.json").read_text() for folder in ("one", "."))
    assert one == two
