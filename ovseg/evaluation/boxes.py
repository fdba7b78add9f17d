"""Detection with words: average precision of base and novel classes, and how well given boxes are named.

AP is COCO's (pycocotools): the mean over IoU 0.50, 0.55, … 0.95, AP50 that at 0.50; a class without true boxes is left
out of means.  The truth comes with the data samples, so sets that exist in memory alone are scored as well.
"""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ovseg.registry import METRICS

from .report import same_provenance, write_scores


class WordMetric(BaseMetric):
    """What the metrics of this file share: provenance, the groups of classes, the JSON file.

    Rank 0 writes ``<work_dir>/metrics_<dataset>.json`` with the provenance (``ovseg.evaluation.report``).

    Args:
        base, novel: names of classes; by default the dataset's own (``base_classes``, ``novel_classes``).
        work_dir: folder of the JSON file; None writes none.
        collect_device, prefix: as for every MMEngine metric.
    """

    def __init__(
        self,
        base: Sequence[str] | None = None,
        novel: Sequence[str] | None = None,
        work_dir: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.base, self.novel, self.work_dir = base, novel, work_dir
        self.provenance = None

    def evaluate(self, size: int) -> dict:
        """Scores of all processes; ``size`` is the number of images of the dataset."""
        try:
            return super().evaluate(size)
        finally:
            self.provenance = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.dataset_meta["classes"])

    def groups(self) -> dict[str, list[int]]:
        """Class ids of ``base`` and ``novel``, if the dataset or the caller defines them.

        Raises:
            ValueError: names that the dataset does not have.
        """
        meta = self.dataset_meta or {}
        configured = dict(base=self.base or meta.get("base_classes"), novel=self.novel or meta.get("novel_classes"))
        groups = {}
        for group, names in configured.items():
            unknown = [name for name in names or () if name not in self.names]
            if unknown:
                raise ValueError(f"{group}: the dataset has no classes {', '.join(unknown)}.")
            if names:
                groups[group] = [self.names.index(name) for name in names]
        return groups

    def write(self, scores: dict, images: int, **details) -> dict:
        if self.work_dir is not None:
            dataset = (self.dataset_meta or {}).get("dataset_name", "dataset")
            write_scores(self.work_dir, dataset, images, scores, self.provenance, **details)
        return {name: round(value, 2) for name, value in scores.items()}


@METRICS.register_module()
class OpenVocabAP(WordMetric):
    """AP, AP50, AP50 of base and novel classes, and the average recall of 100 boxes, in percent.

    A data sample is a mapping with ``gt_instances`` (``bboxes``, ``labels``, ``masks`` for ``segm``), optionally
    ``ignored_instances``, and ``pred_instances`` (``bboxes``, ``scores``, ``labels``, ``masks``), all in pixels of the
    image.  Reports ``AP``, ``AP50``, ``AP50_base``, ``AP50_novel``, ``AR100``, ``AR100_any`` (boxes that match
    whatever their class); with ``segm`` also ``mask_AP`` and so on.

    Args:
        segm: also score masks, if the predictions have them.
        largest: number of detections per image that are scored.
        **shared: see ``WordMetric``.

    Raises:
        ValueError: a sample without ground truth or predictions, scores that are not finite, labels that are not class
            ids.
    """

    default_prefix = "boxes"

    def __init__(self, segm: bool = True, largest: int = 100, **shared):
        super().__init__(**shared)
        self.segm, self.largest = segm, largest

    def process(self, data_batch: dict, data_samples: Sequence[dict]):
        """Store boxes, and masks as COCO run-length encodings."""
        for sample in data_samples:
            missing = [key for key in ("gt_instances", "pred_instances") if key not in sample]
            if missing:
                raise ValueError(
                    f"OpenVocabAP reads {' and '.join(missing)} of every sample, and {_called(sample)} comes without: "
                    "the truth is loaded by the dataset's pipeline, the prediction is that of a detector."
                )
            self.provenance = same_provenance(sample, self.provenance)
            truth, predicted = sample["gt_instances"], sample["pred_instances"]
            scores = _numpy(predicted["scores"])
            if not np.isfinite(scores).all():
                raise ValueError(f"{_called(sample)}: {int((~np.isfinite(scores)).sum())} scores are not finite.")
            ignored = sample.get("ignored_instances")
            if ignored is None:
                ignored = dict(bboxes=np.zeros((0, 4)), labels=np.zeros(0))
            masks = self.segm and "masks" in truth and "masks" in predicted
            shape = tuple(sample["ori_shape"][:2])
            self.results.append(
                dict(
                    shape=shape,
                    truth=self._instances(truth, shape, masks, sample),
                    ignored=self._instances(ignored, shape, masks and "masks" in ignored, sample),
                    predicted=self._instances(predicted, shape, masks, sample),
                    scores=scores.astype(float),
                )
            )

    def _instances(self, instances, shape, masks: bool, sample) -> dict:
        labels = _numpy(instances["labels"]).astype(int)
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.names):
            raise ValueError(
                f"{_called(sample)}: labels go from {labels.min()} to {labels.max()}, but the dataset has the ids 0 to "
                f"{len(self.names) - 1}. Predict with the words of the dataset."
            )
        boxes = _numpy(instances["bboxes"]).astype(float).reshape(-1, 4)
        return dict(boxes=boxes, labels=labels, masks=_run_lengths(instances["masks"], shape) if masks else None)

    def compute_metrics(self, results: list) -> dict:
        """Scores of all images; writes the JSON file."""
        scores, table = self._scores(results, "bbox")
        if self.segm and all(each["truth"]["masks"] is not None for each in results):
            masks, of_masks = self._scores(results, "segm")
            scores |= {f"mask_{name}": value for name, value in masks.items()}
            for row, extra in zip(table, of_masks, strict=True):
                row.update({f"mask_{key}": value for key, value in extra.items() if key != "name"})
        return self.write(scores, len(results), largest=self.largest, classes=table)

    def _scores(self, results: list, kind: str) -> tuple[dict, list[dict]]:
        precision, recall = self._run(results, kind, per_class=True)
        _, recall_any = self._run(results, kind, per_class=False)
        scores = {"AP": _mean(precision), "AP50": _mean(precision[0])}
        for group, ids in self.groups().items():
            scores[f"AP50_{group}"] = _mean(precision[0][:, ids])
        scores |= {"AR100": _mean(recall), "AR100_any": _mean(recall_any)}
        table = [
            dict(name=name, AP=_mean(precision[:, :, k]), AP50=_mean(precision[0][:, k]))
            for k, name in enumerate(self.names)
        ]
        return scores, table

    def _run(self, results: list, kind: str, per_class: bool) -> tuple[np.ndarray, np.ndarray]:
        """Precision (10 IoUs, 101 recalls, K) and recall (10 IoUs, K); −1 for classes without ground truth."""
        categories = range(len(self.names) if per_class else 1)
        images, truths, predictions = [], [], []
        for number, each in enumerate(results, 1):
            height, width = each["shape"]
            images.append(dict(id=number, height=height, width=width))
            for source, ignore in ((each["truth"], 0), (each["ignored"], 1)):
                truths += self._entries(source, number, per_class, iscrowd=ignore)
            order = np.argsort(-each["scores"], kind="stable")[: self.largest]
            entries = self._entries(each["predicted"], number, per_class)
            predictions += [entries[i] | dict(score=each["scores"][i]) for i in order]
        for number, truth in enumerate(truths, 1):
            truth["id"] = number
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = dict(
                images=images, annotations=truths, categories=[dict(id=k, name=str(k)) for k in categories], info={}
            )
            coco.createIndex()
            if not predictions:
                empty = np.where([bool(coco.catToImgs.get(k)) for k in categories], 0.0, -1.0)
                return np.broadcast_to(empty, (10, 101, len(empty))), np.broadcast_to(empty, (10, len(empty)))
            evaluation = COCOeval(coco, coco.loadRes(predictions), kind)
            evaluation.params.maxDets = [self.largest]
            evaluation.params.areaRng = evaluation.params.areaRng[:1]
            evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval["precision"][:, :, :, 0, 0], evaluation.eval["recall"][:, :, 0, 0]

    @staticmethod
    def _entries(source: dict, image: int, per_class: bool, **extra) -> list[dict]:
        entries = []
        for i, (x1, y1, x2, y2) in enumerate(source["boxes"]):
            entry = dict(image_id=image, category_id=int(source["labels"][i]) if per_class else 0, **extra)
            entry |= dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1))
            if source["masks"] is not None:
                entry["segmentation"] = source["masks"][i]
                entry["area"] = float(rle.area(source["masks"][i]))
            entries.append(entry)
        return entries


@METRICS.register_module()
class BoxAccuracy(WordMetric):
    """Classification accuracy on ground-truth boxes, in percent; localization is not scored.

    A prediction is correct only if every other class has a lower score: ties count as errors.

    A data sample has ``gt_instances.labels`` (R,) and, in the same order, ``pred_instances.class_scores`` (R, K).
    Reports ``top1``, ``top5``, and ``mAcc``, the mean of the classes' top-1; with base and novel classes ``mAcc_base``
    and ``mAcc_novel``.

    Args:
        **shared: see ``WordMetric``.

    Raises:
        ValueError: numbers of scores that do not match the boxes or classes, scores that are not finite, or no boxes at
            all.
    """

    default_prefix = "gt_boxes"

    def process(self, data_batch: dict, data_samples: Sequence[dict]):
        """Store the label of every box and the rank of its class."""
        for sample in data_samples:
            self.provenance = same_provenance(sample, self.provenance)
            labels = _numpy(sample["gt_instances"]["labels"]).astype(int)
            scores = _numpy(sample.get("pred_instances", {}).get("class_scores", np.zeros((0, 0))))
            if scores.shape != (len(labels), len(self.names)):
                raise ValueError(
                    f"BoxAccuracy: {_called(sample)} has {len(labels)} true boxes, so pred_instances.class_scores is "
                    f"({len(labels)}, {len(self.names)}); got {scores.shape}. A model such as BoxClassifier gives it."
                )
            if not np.isfinite(scores).all():
                raise ValueError(f"{_called(sample)}: {int((~np.isfinite(scores)).sum())} scores are not finite.")
            own = np.take_along_axis(scores, labels[:, None], 1)
            self.results.append((labels.tolist(), ((scores >= own).sum(1) - 1).tolist()))

    def compute_metrics(self, results: list) -> dict:
        """Scores of all boxes; writes the JSON file."""
        labels = np.concatenate([np.asarray(each, int) for each, _ in results])
        ranks = np.concatenate([np.asarray(each, int) for _, each in results])
        if not len(labels):
            raise ValueError("no box was scored; the dataset or its annotations are empty.")
        ranks_of = [ranks[labels == k] for k in range(len(self.names))]
        of_class = np.array([np.mean(of == 0) if len(of) else -1 for of in ranks_of])
        scores = dict(top1=100 * np.mean(ranks == 0), top5=100 * np.mean(ranks < 5), mAcc=_mean(of_class))
        scores |= {f"mAcc_{group}": _mean(of_class[ids]) for group, ids in self.groups().items()}
        return self.write({name: float(value) for name, value in scores.items()}, len(results), boxes=len(labels))


def _called(sample) -> str:
    return str(sample.get("img_path", "a picture"))


def _numpy(values) -> np.ndarray:
    values = getattr(values, "tensor", values)  # MMDetection's boxes
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _run_lengths(masks, shape: tuple[int, int]) -> list[dict]:
    """COCO run-length encodings of masks (R, H, W); masks that are already encoded are returned as they are."""
    if isinstance(masks, (list, tuple)) and masks and isinstance(masks[0], dict):
        return list(masks)
    array = masks.to_ndarray() if hasattr(masks, "to_ndarray") else _numpy(masks)
    array = array.reshape(-1, *shape).astype(np.uint8)
    return [rle.encode(np.asfortranarray(mask)) for mask in array]


def _mean(values: np.ndarray) -> float:
    """The mean in percent of all values other than −1; nan if there are none."""
    values = np.asarray(values)
    return 100 * float(values[values > -1].mean()) if (values > -1).any() else float("nan")
