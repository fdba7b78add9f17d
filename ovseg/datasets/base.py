"""Shared by ovseg's datasets: class names from a vocabulary, and a check for missing files up front."""

from pathlib import Path

from mmseg.datasets import BaseSegDataset

from ovseg.text.vocabulary import Vocabulary


def metainfo(vocabulary: Vocabulary, name: str, **extra) -> dict:
    """MMEngine's ``METAINFO``: ``classes`` and ``palette`` of a vocabulary, ``dataset_name`` for result files."""
    palette = [list(color) for color in vocabulary.colors]
    return dict(classes=vocabulary.names, palette=palette, dataset_name=name, **extra)


class FolderDataset(BaseSegDataset):
    """A ``BaseSegDataset`` with clear errors for missing files.

    Raises:
        FileNotFoundError: a folder, the split file, all images, or the label of the first image is missing.
    """

    hint = ""

    def load_data_list(self) -> list[dict]:
        wanted = {"images": self.data_prefix.get("img_path"), "labels": self.data_prefix.get("seg_map_path")}
        wanted["split file"] = self.ann_file or None
        missing = [f"{what} {path}" for what, path in wanted.items() if path is not None and not Path(path).exists()]
        if missing:
            raise FileNotFoundError(self._advice(f"not found: {', '.join(missing)}"))
        items = super().load_data_list()
        if not items:
            raise FileNotFoundError(self._advice(f"no image in {wanted['images']} ends in '{self.img_suffix}'"))
        first = {"image": items[0]["img_path"], "label": items[0].get("seg_map_path")}
        for what, path in first.items():
            if path is not None and not Path(path).is_file():
                beside = sorted(p.name for p in Path(path).parent.glob(f"{Path(items[0]['img_path']).stem[:12]}*"))
                neighbors = f"; beside it: {', '.join(beside[:4])}" if beside else ""
                raise FileNotFoundError(self._advice(f"the first {what}, {path}, does not exist{neighbors}"))
        return items

    def _advice(self, problem: str) -> str:
        advice = f"{type(self).__name__}: {problem}. Set data_root (now '{self.data_root}') to the folder of the data."
        return f"{advice} {self.hint}".rstrip()
