"""mIoU of open-vocabulary segmentation: exact versions of MMSegmentation's metrics, saved with their provenance."""

from collections.abc import Sequence

import numpy as np
import torch
from mmseg.evaluation.metrics import IoUMetric
from torch import Tensor

from ovseg.registry import METRICS

from .report import same_provenance, write_scores


@METRICS.register_module()
class OpenVocabIoU(IoUMetric):
    """mIoU, mAcc, aAcc in percent and the per-class table, as mmseg's ``IoUMetric`` reports them.

    Differences to the base class:

    * Pixels are counted in integers and divided in float64. (float32 sums lose pixels beyond 2**24 per class.)
    * A label or prediction that is neither a class id nor ``ignore_index`` is an error; mmseg skips it silently.
    * ``groups``: the mean IoU of chosen classes, ``mIoU_<group>``.
    * ``unseen``: the classes hidden from training define two groups, ``mIoU_seen`` and ``mIoU_unseen``, and hIoU, the
      harmonic mean of the two, 2·s·u/(s + u).
    * Rank 0 writes ``<work_dir>/metrics_<dataset>.json``: full-precision scores, the per-class table and the
      provenance (``ovseg.evaluation.report``). The file is replaced in one step.

    A class that occurs in neither the labels nor the predictions is nan and excluded from the means.

    Distributed runs: every process stores the counts of its images, one entry per image in the order of its sampler,
    and all entries are gathered. ``DefaultSampler`` assigns images in turn and repeats the first ones at the end to
    equalize the shares, so re-interleaving them and truncating to the size of the dataset drops exactly the repeats.

    Args:
        groups: name -> class ids; by default the dataset's own (``metainfo['groups']``).
        unseen: names of classes; by default the dataset's own (``metainfo['unseen']``).
        work_dir: folder of the JSON file; None writes none.
        ignore_index: label of pixels that are not scored.
        output_dir: folder in which predictions are also saved as PNG.
        format_only: only save predictions, for test sets without labels.
        prefix: prefix of the metric names.
        collect_device: ``gpu`` sends the counts through the process group (which works on CPU with gloo); ``cpu``
            through files in a folder ``.dist_test`` of the working directory that all processes must share.

    Raises:
        ValueError: a label or prediction out of range, a group with an unknown id, or provenance that changes.
        RuntimeError: fewer or more images were scored than the dataset has.
    """

    def __init__(
        self,
        groups: dict[str, list[int]] | None = None,
        unseen: Sequence[str] | None = None,
        work_dir: str | None = None,
        ignore_index: int = 255,
        output_dir: str | None = None,
        format_only: bool = False,
        prefix: str | None = None,
        collect_device: str = "gpu",
    ):
        super().__init__(
            ignore_index=ignore_index,
            output_dir=output_dir,
            format_only=format_only,
            prefix=prefix,
            collect_device=collect_device,
        )
        self.groups, self.unseen, self.work_dir = groups, unseen, work_dir
        self.provenance = None
        self._size = None

    def process(self, data_batch: dict, data_samples: list[dict]):
        """Count the pixels of predicted samples; each has ``pred_sem_seg`` and ``gt_sem_seg``, (1, H, W) each."""
        for sample in data_samples:
            try:
                super().process(data_batch, [sample])
            except ValueError as error:
                raise ValueError(f"{sample.get('img_path', 'an image')}: {error}") from error
            self.provenance = same_provenance(sample, self.provenance)

    def evaluate(self, size: int) -> dict:
        """Scores of all processes; ``size`` is the number of images of the dataset."""
        self._size = size
        try:
            return super().evaluate(size)
        finally:
            self.provenance = None

    def compute_metrics(self, results: list) -> dict:
        """Scores in percent from the per-image counts of all processes; writes the JSON file."""
        if self.format_only:
            return super().compute_metrics(results)
        if self._size is not None and len(results) != self._size:
            raise RuntimeError(
                f"{len(results)} images were scored, but the dataset has {self._size}. Each process must score the "
                "images that DefaultSampler(shuffle=False) gives it, one result per image."
            )
        metrics = super().compute_metrics(results)
        totals = [sum(counts) for counts in zip(*results, strict=True)]
        exact = {name: 100 * values for name, values in self.total_area_to_metrics(*totals).items()}
        means = {f"mIoU_{name}": _mean(exact["IoU"][ids]) for name, ids in self._groups().items()}
        if "mIoU_unseen" in means:
            seen, unseen = means["mIoU_seen"], means["mIoU_unseen"]
            means["hIoU"] = 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0
        metrics.update({name: np.round(value, 2) for name, value in means.items()})
        if self.work_dir is not None:
            scores = dict(aAcc=exact["aAcc"], mIoU=_mean(exact["IoU"]), mAcc=_mean(exact["Acc"]), **means)
            self._write(scores, exact, totals, len(results))
        return metrics

    def _groups(self):
        groups = dict(self.groups if self.groups is not None else self.dataset_meta.get("groups") or {})
        names = list(self.dataset_meta["classes"])
        classes = len(names)
        hidden = self.dataset_meta.get("unseen", ()) if self.unseen is None else self.unseen
        if hidden:
            unknown = [name for name in hidden if name not in names]
            if unknown:
                raise ValueError(f"unseen: the dataset has no classes {', '.join(unknown)}; it has {', '.join(names)}.")
            groups["seen"] = [i for i, name in enumerate(names) if name not in hidden]
            groups["unseen"] = [names.index(name) for name in hidden]
        for name, ids in groups.items():
            wrong = [i for i in ids if not 0 <= i < classes]
            if wrong or not ids:
                got = wrong or "none"
                raise ValueError(f"Group '{name}' should list class ids from 0 to {classes - 1}; got {got}.")
        return {name: list(ids) for name, ids in groups.items()}

    def _write(self, scores, exact, totals, images):
        names = self.dataset_meta["classes"]
        table = [
            dict(name=name, IoU=exact["IoU"][i], Acc=exact["Acc"][i], label_pixels=int(totals[3][i]))
            for i, name in enumerate(names)
        ]
        dataset, scored = self.dataset_meta.get("dataset_name", "dataset"), int(np.isfinite(exact["IoU"]).sum())
        write_scores(self.work_dir, dataset, images, scores, self.provenance, classes_scored=scored, classes=table)

    @staticmethod
    def intersect_and_union(pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int):
        """Pixel counts of one image: intersection, union, prediction, label, each (num_classes,) int64 on the CPU."""
        if pred_label.shape != label.shape:
            raise ValueError(f"prediction {tuple(pred_label.shape)} and label map {tuple(label.shape)} differ in size.")
        keep = label != ignore_index
        pred_label, label = pred_label[keep].long(), label[keep].long()
        for what, ids in (("label", label), ("prediction", pred_label)):
            wrong = ids[(ids < 0) | (ids >= num_classes)].unique()
            if len(wrong):
                raise ValueError(
                    f"the {what} map holds {wrong.tolist()[:8]}, but the {num_classes} classes are 0 to "
                    f"{num_classes - 1} (and {ignore_index} is ignored). Check reduce_zero_label, the label suffix and "
                    "the number of classes."
                )
        predicted = torch.bincount(pred_label, minlength=num_classes).cpu()
        labeled = torch.bincount(label, minlength=num_classes).cpu()
        intersection = torch.bincount(label[pred_label == label], minlength=num_classes).cpu()
        return intersection, predicted + labeled - intersection, predicted, labeled

    @staticmethod
    def total_area_to_metrics(intersection, union, predicted, labeled, *args, **kwargs):
        """As the base class, in float64."""
        areas = (torch.as_tensor(area).double() for area in (intersection, union, predicted, labeled))
        return IoUMetric.total_area_to_metrics(*areas, *args, **kwargs)


def _mean(values: np.ndarray) -> float:
    """Mean over values that are not nan; nan if there are none."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
