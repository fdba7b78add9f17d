"""mIoU of open-vocabulary segmentation: MMSegmentation's numbers, exact, with the conditions they were made under."""

from pathlib import Path

import numpy as np
import torch
from mmengine.logging import print_log
from mmseg.evaluation.metrics import IoUMetric
from torch import Tensor

from ovseg.registry import METRICS

from .report import write_json


@METRICS.register_module()
class OpenVocabIoU(IoUMetric):
    """mIoU, mAcc, aAcc in percent and the per-class table, as mmseg's ``IoUMetric`` reports them.

    Differences to the base class:

    * Pixels are counted in integers and divided in float64. (float32 sums lose pixels beyond 2**24 per class.)
    * A label or prediction that is no class id and not ``ignore_index`` is an error; mmseg leaves it out silently.
    * ``groups``: the mean IoU of chosen classes, ``mIoU_<group>``.
    * Rank 0 writes ``<work_dir>/metrics_<dataset>.json``: full-precision scores, the per-class table and the
      provenance, see below. The file is replaced in one step.

    A class that neither the labels nor the predictions contain is nan and left out of the means.

    Provenance comes with the predictions: a model puts ``provenance=dict(protocol=..., vocabulary=<hash>,
    weights=<hash>)`` into the metainfo of its data samples. It must be the same for all images.

    Several processes: every process keeps the counts of its images, one entry per image in the order of its sampler,
    and all entries are gathered. ``DefaultSampler`` deals images out in turn and repeats the first ones at the end to
    even the shares, so re-interleaving the shares and cutting at the size of the dataset drops just the repeats.

    Args:
        groups: name -> class ids; by default the dataset's own (``metainfo['groups']``).
        work_dir: folder of the JSON file; None writes none.
        ignore_index: label of pixels that are not scored.
        output_dir: also save predictions there as PNG.
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
        self.groups, self.work_dir = groups, work_dir
        self.provenance = None
        self._size = None

    def process(self, data_batch: dict, data_samples: list[dict]):
        """Count the pixels of predicted samples; each has ``pred_sem_seg`` and ``gt_sem_seg``, (1, H, W) each."""
        for sample in data_samples:
            try:
                super().process(data_batch, [sample])
            except ValueError as error:
                raise ValueError(f"{sample.get('img_path', 'an image')}: {error}") from error
            provenance = sample.get("provenance")
            if self.provenance is not None and provenance != self.provenance:
                raise ValueError(
                    f"{sample.get('img_path', 'an image')} was predicted under other conditions than the images before "
                    f"it ({provenance} instead of {self.provenance}); one score needs one protocol."
                )
            self.provenance = provenance

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
        metrics.update({name: np.round(value, 2) for name, value in means.items()})
        if self.work_dir is not None:
            scores = dict(aAcc=exact["aAcc"], mIoU=_mean(exact["IoU"]), mAcc=_mean(exact["Acc"]), **means)
            self._write(scores, exact, totals, len(results))
        return metrics

    def _groups(self):
        groups = self.groups if self.groups is not None else self.dataset_meta.get("groups") or {}
        classes = len(self.dataset_meta["classes"])
        for name, ids in groups.items():
            wrong = [i for i in ids if not 0 <= i < classes]
            if wrong or not ids:
                got = wrong or "none"
                raise ValueError(f"Group '{name}' should list class ids from 0 to {classes - 1}; got {got}.")
        return {name: list(ids) for name, ids in groups.items()}

    def _write(self, scores, exact, totals, images):
        names = self.dataset_meta["classes"]
        dataset = self.dataset_meta.get("dataset_name", "dataset")
        provenance = self.provenance or {}
        if not provenance:
            print_log(f"the scores of {dataset} are saved without a protocol: the model tells none", "current")
        table = [
            dict(name=name, IoU=exact["IoU"][i], Acc=exact["Acc"][i], label_pixels=int(totals[3][i]))
            for i, name in enumerate(names)
        ]
        report = dict(
            dataset=dataset,
            images=images,
            scores=scores,
            classes_scored=int(np.isfinite(exact["IoU"]).sum()),
            protocol=provenance.get("protocol"),
            vocabulary=provenance.get("vocabulary"),
            weights=provenance.get("weights"),
            classes=table,
        )
        write_json(Path(self.work_dir) / f"metrics_{dataset}.json", report)

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
        labelled = torch.bincount(label, minlength=num_classes).cpu()
        intersection = torch.bincount(label[pred_label == label], minlength=num_classes).cpu()
        return intersection, predicted + labelled - intersection, predicted, labelled

    @staticmethod
    def total_area_to_metrics(intersection, union, predicted, labelled, *args, **kwargs):
        """As the base class, in float64."""
        areas = (torch.as_tensor(area).double() for area in (intersection, union, predicted, labelled))
        return IoUMetric.total_area_to_metrics(*areas, *args, **kwargs)


def _mean(values: np.ndarray) -> float:
    """Mean without nan; nan if nothing else is there."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
