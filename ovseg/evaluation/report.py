"""Score files: JSON written atomically, with the provenance of the scores.

Provenance comes with the predictions: a model puts its ``Provenance`` into the metainfo of its data samples.  It is the
same for all images.
"""

from pathlib import Path

from mmengine.logging import print_log

from ovseg.files import write_json
from ovseg.results.provenance import Provenance


def same_provenance(sample: dict, before: Provenance | None) -> Provenance | None:
    """The provenance of a predicted sample, given that of the images before it (None before the first).

    Raises:
        ValueError: they differ.
    """
    provenance = sample.get("provenance")
    if before is not None and provenance != before:
        raise ValueError(
            f"{sample.get('img_path', 'an image')} was predicted under other conditions than the images before it "
            f"({provenance} instead of {before}); one score needs one protocol."
        )
    return provenance


def write_scores(
    work_dir: str | Path, dataset: str, images: int, scores: dict, provenance: Provenance | None, **details
):
    """Write ``<work_dir>/metrics_<dataset>.json``: scores, their provenance, and ``details``."""
    if provenance is None:
        print_log(f"the scores of {dataset} are saved without a protocol: the model has none", "current")
    report = dict(dataset=dataset, images=images, scores=scores, **(provenance or Provenance()).to_dict(), **details)
    write_json(Path(work_dir) / f"metrics_{dataset}.json", report)
