"""Additional maps for training: masks without class labels, saliency, a second view of the image.

    dict(type="LoadMaps", folder="sam_masks", suffix=".npz"),                  # from files, or
    dict(type="MakeRegions", source=dict(type="Superpixels", count=60)),       # computed on the fly
    … resize, crop, flip …
    dict(type="StrongView"),
    dict(type="PackMapInputs", fields=("gt_regions", "student_view")),

Masks are stored as layers of region ids (H, W, S) uint16, 0 for none, so that MMSegmentation's transforms resize, crop
and flip them like labels; overlapping masks are in different layers.  A subsequent ``Pad`` must fill with zeros:
``pad_val=dict(img=0, seg=0)`` (in a pipeline without labels).
"""

from pathlib import Path

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import PixelData
from mmseg.datasets.transforms import PackSegInputs
from torchvision.transforms import v2

from ovseg.compat.untrusted import read_json
from ovseg.registry import MASKS, TRANSFORMS


def as_layers(masks: np.ndarray) -> np.ndarray:
    """Layers of ids (H, W, S) uint16 from masks (R, H, W): each goes into the first layer where it overlaps nothing.

    Ids count from 1 in the order of the masks.

    Raises:
        ValueError: not masks, or more than 65,535.
    """
    masks = np.asarray(masks, bool)
    if masks.ndim != 3 or len(masks) > np.iinfo(np.uint16).max:
        raise ValueError(f"masks are (R, H, W) with at most 65535 regions, got {masks.shape}.")
    layers: list[np.ndarray] = [np.zeros(masks.shape[1:], np.uint16)]
    for number, mask in enumerate(masks, 1):
        free = next((layer for layer in layers if not layer[mask].any()), None)
        if free is None:
            free = np.zeros(masks.shape[1:], np.uint16)
            layers.append(free)
        free[mask] = number
    return np.stack(layers, -1)


def read_maps(path: Path) -> np.ndarray:
    """The maps of one file, (H, W) or (H, W, S).

    ``.png`` and other images: ids (0 for none) or gray values; ``.npy``: ids (H, W) or (H, W, S); ``.npz``: ``masks``
    (R, H, W); ``.json``: SA-1B's ``annotations`` with run-length ``segmentation``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another content.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path} with maps: check folder and suffix of LoadMaps.")
    if path.suffix == ".npy":
        maps = np.load(path, allow_pickle=False)
        if maps.dtype.kind not in "iu" or maps.ndim not in (2, 3) or not 0 <= maps.min() <= maps.max() < 2**16:
            raise ValueError(f"{path} is {maps.dtype} {maps.shape}; expected ids (H, W) or (H, W, S) from 0 to 65535.")
        return maps.astype(np.uint16)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            if "masks" not in file.files:
                raise ValueError(f"{path} holds {', '.join(file.files)}; expected the array masks (R, H, W).")
            return as_layers(file["masks"])
    if path.suffix == ".json":
        from pycocotools import mask as coco

        content = read_json(path)
        codes = [each["segmentation"] for each in content.get("annotations", [])]
        if not codes:
            raise ValueError(f"{path} holds no annotations with a segmentation; expected a file as SA-1B has them.")
        return as_layers(coco.decode(codes).transpose(2, 0, 1))
    maps = mmcv.imread(str(path), flag="unchanged")
    if maps.ndim != 2:
        raise ValueError(f"{path} has {maps.shape[-1]} channels; expected a picture with one, of ids or gray values.")
    return maps


@TRANSFORMS.register_module()
class LoadMaps(BaseTransform):
    """Read an image's maps from ``folder/<name of the picture><suffix>``.

    Required keys: ``img``, ``img_path``.  Added keys: the field, ``seg_fields``.

    Args:
        folder: folder of the files.
        suffix: file name suffix, see ``read_maps``.
        field: ``gt_regions`` or ``gt_saliency``.

    Raises:
        FileNotFoundError, ValueError: see ``read_maps``; maps whose size is not that of the image.
    """

    def __init__(self, folder: str, suffix: str = ".png", field: str = "gt_regions"):
        self.folder, self.suffix, self.field = Path(folder), suffix, field

    def transform(self, results: dict) -> dict:
        path = self.folder / (Path(results["img_path"]).stem + self.suffix)
        maps = read_maps(path)
        if maps.shape[:2] != results["img"].shape[:2]:
            raise ValueError(
                f"{path} is {maps.shape[:2]}, its picture {results['img_path']} {results['img'].shape[:2]}: maps are "
                "made for pictures of their own size, before any resizing."
            )
        return add_field(results, self.field, maps)


@TRANSFORMS.register_module()
class MakeRegions(BaseTransform):
    """Regions from a mask source of ``ovseg.regions``, superpixels for example.

    Required keys: ``img``.  Added keys: ``gt_regions`` (H, W) uint16, ``seg_fields``.

    Args:
        source: config of the source, or any function from an RGB image to ids (H, W), −1 for none.
    """

    def __init__(self, source: dict):
        self.source = MASKS.build(dict(source)) if isinstance(source, dict) else source

    def transform(self, results: dict) -> dict:
        ids = self.source(np.ascontiguousarray(results["img"][..., ::-1]))
        return add_field(results, "gt_regions", (ids + 1).astype(np.uint16))


def add_field(results: dict, field: str, maps: np.ndarray) -> dict:
    """Add maps to the results under the keys that MMSegmentation's transforms process."""
    results[field] = maps
    results["seg_fields"] = [*results.get("seg_fields", []), field]
    return results


@TRANSFORMS.register_module()
class StrongView(BaseTransform):
    """A second view of the image, in other colors: jitter, gray with probability 0.2, blur (PixelCLIP's student).

    The paper does not give the strengths of these augmentations; ours are those of MoCo v2.

    Required keys: ``img``.  Added keys: ``student_view`` (H, W, 3) uint8 BGR.
    """

    def __init__(self):
        self.change = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], 0.5),
            ]
        )

    def transform(self, results: dict) -> dict:
        rgb = torch.from_numpy(np.ascontiguousarray(results["img"].astype(np.uint8)[..., ::-1])).permute(2, 0, 1)
        view = self.change(rgb).permute(1, 2, 0).numpy()
        results["student_view"] = np.ascontiguousarray(view[..., ::-1])
        return results


@TRANSFORMS.register_module()
class PackMapInputs(PackSegInputs):
    """MMSegmentation's packing, with maps and views (C, H, W) added to the data sample.

    Args:
        fields: which to pack; fields that an image lacks are skipped.
        meta_keys: see ``PackSegInputs``.
    """

    def __init__(self, fields: tuple[str, ...] = ("gt_regions",), **options):
        super().__init__(**options)
        self.fields = tuple(fields)

    def transform(self, results: dict) -> dict:
        packed = super().transform(results)
        for field in self.fields:
            if field in results:
                maps = np.atleast_3d(results[field]).transpose(2, 0, 1)
                maps = maps.astype(np.int64) if field == "gt_regions" else maps
                packed["data_samples"].set_data({field: PixelData(data=torch.from_numpy(np.ascontiguousarray(maps)))})
        return packed
