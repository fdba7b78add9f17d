"""Phrase localization: accuracy at IoU 0.5 and the pointing game.

Boxes are (x1, y1, x2, y2) in pixels, edges: the pixel in column c covers x from c to c + 1.
"""

from collections.abc import Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from ovseg.registry import METRICS

from .report import same_provenance, write_scores


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union, (…,) float64, of boxes (…, 4) that broadcast against each other; 0 of two points.

    Raises:
        ValueError: boxes that are not (…, 4), not finite, or have x2 < x1 or y2 < y1.
    """
    first, second = _boxes(first, "boxes"), _boxes(second, "boxes")
    low, high = np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    union = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1) - common
    return common / np.where(union > 0, union, 1)


def box_hit(box: np.ndarray, truth: np.ndarray, threshold: float = 0.5, merge: bool = False) -> bool:
    """Whether a box (4,) is correct: IoU strictly above the threshold with any ground-truth box of the phrase (M, 4).

    ``merge`` compares with the single box around all ground-truth boxes instead; results differ for phrases that
    refer to several objects, so report which was used.

    Raises:
        ValueError: no ground-truth box, or boxes with x2 < x1 or y2 < y1.
    """
    truth = _truth(truth)
    if merge:
        truth = np.concatenate([truth[:, :2].min(0), truth[:, 2:].max(0)])[None]
    return bool((box_iou(_boxes(box, "the box"), truth) > threshold).any())


def peak(heat: np.ndarray) -> tuple[float, float]:
    """Center (x, y) in pixels of the maximum of a map (H, W); the first in row-major order if there are several.

    Raises:
        ValueError: not a map of finite values.
    """
    heat = np.asarray(heat)
    if heat.ndim != 2 or not heat.size or not np.isfinite(heat).all():
        raise ValueError(f"a heat map is (H, W) finite numbers, got shape {heat.shape}.")
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return float(column) + 0.5, float(row) + 0.5


def point_hit(point: Sequence[float], truth: np.ndarray) -> bool:
    """The pointing game: whether a point (x, y) lies in any ground-truth box (M, 4), borders included.

    Raises:
        ValueError: no ground-truth box, or boxes with x2 < x1 or y2 < y1.
    """
    truth, (x, y) = _truth(truth), point
    return bool(((truth[:, 0] <= x) & (x <= truth[:, 2]) & (truth[:, 1] <= y) & (y <= truth[:, 3])).any())


@METRICS.register_module()
class PhraseMetric(BaseMetric):
    """Accuracy at an IoU and pointing game over all phrases of a dataset, in percent.

    A data sample is a mapping with ``phrases``: one mapping per phrase of the image with ``box`` (4,), ``truth``
    (M, 4), and for the pointing game ``point`` (x, y) or ``heat`` (H, W) in the size of the image.

    Reports ``accuracy``, ``phrases`` (their number) and, where every phrase has a point, ``pointing``.  Rank 0 writes
    them to ``<work_dir>/metrics_<dataset>.json`` with the provenance (``ovseg.evaluation.report``).

    Args:
        threshold, merge: see ``box_hit``.
        work_dir: folder of the JSON file; None writes none.
        collect_device, prefix: as for every MMEngine metric.

    Raises:
        ValueError: a sample without phrases, a phrase without prediction, no phrases at all, or provenance
            that changes.
    """

    default_prefix = "phrase"

    def __init__(
        self,
        threshold: float = 0.5,
        merge: bool = False,
        work_dir: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold is an IoU from 0 up to, not including, 1; got {threshold}.")
        self.threshold, self.merge, self.work_dir = threshold, merge, work_dir
        self.provenance = None

    def process(self, data_batch: dict, data_samples: Sequence[dict]):
        """Store per image the numbers of phrases, of correct boxes, and of correct points (None without points)."""
        for sample in data_samples:
            if "phrases" not in sample:
                raise ValueError(
                    "PhraseMetric reads sample['phrases'], a list of dict(box=..., truth=...), one per phrase; this "
                    f"sample has only {', '.join(map(str, sample)) or 'nothing'}."
                )
            for each in sample["phrases"]:
                if not {"box", "truth"} <= set(each):
                    raise ValueError(
                        "PhraseMetric needs the true boxes of every phrase, which the dataset gives as truth, and a "
                        f"box, which a model such as PhraseLocalizer gives; a phrase has only {', '.join(each)}."
                    )
            self.provenance = same_provenance(sample, self.provenance)
            hits = [box_hit(each["box"], each["truth"], self.threshold, self.merge) for each in sample["phrases"]]
            points = [self._pointed(each) for each in sample["phrases"]]
            self.results.append((len(hits), sum(hits), None if None in points else sum(points)))

    def evaluate(self, size: int) -> dict:
        """Scores of all processes; ``size`` is the number of images of the dataset."""
        try:
            return super().evaluate(size)
        finally:
            self.provenance = None

    def compute_metrics(self, results: list) -> dict:
        """Means over phrases, not over images; writes the JSON file."""
        total = sum(count for count, _, _ in results)
        if not total:
            raise ValueError("no phrase was scored; the dataset or its annotations are empty.")
        scores = {"accuracy": 100 * sum(hits for _, hits, _ in results) / total}
        if all(points is not None for _, _, points in results):
            scores["pointing"] = 100 * sum(points for _, _, points in results) / total
        if self.work_dir is not None:
            dataset = (self.dataset_meta or {}).get("dataset_name", "dataset")
            rule = dict(iou_above=self.threshold, merge=self.merge)
            write_scores(self.work_dir, dataset, len(results), scores, self.provenance, phrases=total, hit=rule)
        return scores | {"phrases": total}

    @staticmethod
    def _pointed(phrase: dict) -> bool | None:
        if "point" in phrase:
            return point_hit(phrase["point"], phrase["truth"])
        return point_hit(peak(phrase["heat"]), phrase["truth"]) if "heat" in phrase else None


def _boxes(values, what: str) -> np.ndarray:
    boxes = np.asarray(values, dtype=np.float64)
    if boxes.ndim < 1 or boxes.shape[-1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"{what} must be finite numbers (..., 4): x1, y1, x2, y2; got shape {boxes.shape}.")
    if (boxes[..., 2:] < boxes[..., :2]).any():
        raise ValueError(f"{what} must have x2 >= x1 and y2 >= y1; are they (x, y, width, height)?")
    return boxes


def _truth(values) -> np.ndarray:
    truth = np.atleast_2d(_boxes(values, "the true boxes"))
    if truth.ndim != 2 or not len(truth):
        raise ValueError(f"a phrase needs one true box or more, (M, 4); got shape {truth.shape}.")
    return truth
