"""Two small sets of real images for smoke tests: 100 CamVid frames and 200 COCO images.

They are read from the folders ``camvid_mini`` and ``coco_mini`` below ``OVSEG_DATA`` (default: ``../shared/data`` seen
from the project, then from the working directory). Too few images for a score worth quoting.
"""

import os
from pathlib import Path

from ovseg.registry import DATASETS
from ovseg.text.vocabulary import Vocabulary

from .base import FolderDataset, metainfo
from .splits import UNSEEN_CAMVID, UNSEEN_COCO

VARIABLE = "OVSEG_DATA"
PROJECT = Path(__file__).resolve().parents[2]


def data_folder(name: str) -> Path:
    """The folder ``name`` below ``OVSEG_DATA``.

    Raises:
        FileNotFoundError: it does not exist; the message names the variable and the folders searched.
    """
    configured = os.environ.get(VARIABLE)
    folders = [base.parent / "shared" / "data" for base in (PROJECT, Path.cwd())]
    if configured:
        folders = [Path(configured)]
    for folder in folders:
        if (folder / name).is_dir():
            return folder / name
    looked = " or ".join(map(str, dict.fromkeys(folders)))
    raise FileNotFoundError(
        f"No folder '{name}' in {looked}. Set the environment variable {VARIABLE} to the folder that holds '{name}', "
        "or give data_root."
    )


class MiniDataset(FolderDataset):
    """Images in ``images/<split>/*.jpg``, with labels next to them.

    Args:
        split: ``val`` or ``train``.
        data_root: the folder itself; located through ``OVSEG_DATA`` if None.
        **kwargs: see mmseg's ``BaseSegDataset``.

    Raises:
        ValueError: an unknown split.
        FileNotFoundError: the data is not there.
    """

    folder: str
    labels: str
    hint = f"The mini sets are looked for below the environment variable {VARIABLE}."

    def __init__(self, split: str = "val", data_root: str | None = None, **kwargs):
        if split not in ("train", "val"):
            raise ValueError(f"{type(self).__name__} has the splits train, val; got '{split}'.")
        prefix = dict(img_path=f"images/{split}", seg_map_path=f"{self.labels}/{split}")
        root = data_root or str(data_folder(self.folder))
        super().__init__(data_root=root, **(dict(data_prefix=prefix) | kwargs))


@DATASETS.register_module()
class CamVidMini(MiniDataset):
    """CamVid's 11 classes of road scenes; its label 11 (unlabeled) becomes 255."""

    METAINFO = metainfo(Vocabulary.parse("camvid"), "camvid_mini", unseen=UNSEEN_CAMVID)
    folder, labels = "camvid_mini", "labels"

    @classmethod
    def get_label_map(cls, new_classes=None) -> dict:
        return {**(super().get_label_map(new_classes) or {}), len(cls.METAINFO["classes"]): 255}


@DATASETS.register_module()
class COCOMini(MiniDataset):
    """COCO panoptic classes as a semantic map: 80 things, 53 kinds of stuff, 255 unlabeled."""

    METAINFO = metainfo(
        Vocabulary.parse("coco_panoptic"),
        "coco_mini",
        groups=dict(things=list(range(80)), stuff=list(range(80, 133))),
        unseen=UNSEEN_COCO,
    )
    folder, labels = "coco_mini", "semantic"
