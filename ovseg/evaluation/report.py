"""Score files: JSON that is either complete or not there, with the conditions the scores were made under.

Provenance comes with the predictions: a model puts ``provenance=dict(protocol=..., vocabulary=<hash>, weights=<hash>)``
into the metainfo of its data samples.  It must be the same for all images.
"""

import json
import math
import os
import tempfile
from pathlib import Path

from mmengine.logging import print_log


def same_provenance(sample: dict, before: dict | None) -> dict | None:
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


def write_scores(work_dir: str | Path, dataset: str, images: int, scores: dict, provenance: dict | None, **details):
    """Write ``<work_dir>/metrics_<dataset>.json``: scores, what they were made with, and ``details``."""
    if not provenance:
        print_log(f"the scores of {dataset} are saved without a protocol: the model tells none", "current")
    made_with = {key: (provenance or {}).get(key) for key in ("protocol", "vocabulary", "weights")}
    report = dict(dataset=dataset, images=images, scores=scores, **made_with, **details)
    write_json(Path(work_dir) / f"metrics_{dataset}.json", report)


def write_json(path: str | Path, content: dict):
    """Write ``content`` to ``path`` in one step; nan and infinity become null, tuples lists. Creates the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(_plain(content), file, indent=1, ensure_ascii=False, allow_nan=False)
            file.write("\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return _plain(value.item()) if hasattr(value, "item") else str(value)
