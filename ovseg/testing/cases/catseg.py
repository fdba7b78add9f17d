"""CAT-Seg's aggregator alone, and the whole segmentor: dense features, logits, both ways of testing, training loss."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.catseg import CostAggregation, CostScore, cost_volume
from ovseg.catseg.released import head_state
from ovseg.dense import CATSeg
from ovseg.predict.class_maps import ClassMaps, ImageFeatures
from ovseg.predict.pipeline import Pipeline
from ovseg.predict.protocol import Protocol
from ovseg.towers.build import build_visual
from ovseg.towers.formats import catseg_clip, visual_part

from .common import Case, case, in_cases

ALL = 2**40  # bytes, so that no step is portioned


@case(inputs=("*/img_feats", "*/text_feats", "*/guid_dec0", "*/guid_dec1"))
def trained_catseg(golden):
    return in_cases(golden, _aggregator)


def _aggregator(each: Case) -> dict[str, Tensor]:
    features, text = each.input("img_feats"), each.input("text_feats")
    arrays = {"corr": cost_volume(features, text)}
    if not (each.weights and each.has("guid_dec0", "guid_dec1")):
        return arrays
    settings, seen = each.settings, {}
    model = CostAggregation.from_state(
        each.weights,
        heads=settings["nheads"],
        window=settings["window_size"],
        attention=settings["attention_type"],
        pad_len=settings["pad_len"],
        top_k=settings["pad_len"] or None,
        memory=ALL,
    )

    def keep(name):
        return lambda module, inputs, out: seen.setdefault(name, []).append(out.permute(0, 4, 1, 2, 3).clone())

    for index, layer in enumerate(model.layers):
        layer.swin_block.register_forward_hook(keep(f"layer{index}_spatial"))
        layer.register_forward_hook(keep(f"layer{index}_out"))
    guidance = each.input("guid_dec0"), each.input("guid_dec1")
    arrays["logits"] = model(features, text, guidance, tuple(settings["pooling_size"]))
    return arrays | {name: torch.cat(pictures) for name, pictures in seen.items()}


@case(inputs=("*/image_u8", "*/text", "*/train_images_u8", "*/train_targets"))
def trained_catseg_full(golden):
    return in_cases(golden, _segmentor)


def parts(each: Case) -> tuple:
    """Tower, extractor and scorer of a case, through the converters of the authors' checkpoints.

    The file does not record the heads and windows of the aggregation or the cells of its class step; unless
    it does, they are those of the file we have (2, 12 and 2×2, also in evaluation).
    """
    settings = each.settings
    pooling = tuple(settings.get("pooling_size", (2, 2)))
    tower = build_visual(visual_part(catseg_clip(each.weights)), settings["vit"]["heads"])
    scorer = CostScore.from_state(
        head_state(each.weights),
        pooling,
        pooling,
        heads=settings.get("nheads", 2),
        window=settings.get("window_size", 12),
        attention=settings.get("attention_type", "linear"),
        pad_len=settings["pad_len"],
        top_k=settings["pad_len"] or None,
    )
    return tower, CATSeg(taps_at=settings["hook_layers"]), scorer


def _segmentor(each: Case) -> dict[str, Tensor]:
    tower, dense, scorer = parts(each)
    text, arrays = each.input("text"), {}
    side = each.settings["vit"]["patch"] * each.settings["vit"]["run_grid"]
    if each.has("image_u8"):
        picture = tower.normalize(each.input("image_u8")[None] / 255)
        arrays |= _whole(each, dense(tower, _padded(picture, side)), scorer, text, picture.shape[2:])
        arrays["sem_seg_slide"] = _sliding(each, Pipeline(tower, dense, _protocol(each, side), scorer), picture, text)
    if each.has("train_images_u8", "train_targets"):
        from ovseg.segmentors.catseg import class_loss

        out = dense(tower, _resized(tower.normalize(each.input("train_images_u8") / 255), side))
        arrays["train_loss"] = class_loss(scorer.train()(out, text), each.input("train_targets"))
    return arrays


def _resized(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", align_corners=False)


def _padded(picture: Tensor, side: int) -> Tensor:
    """The reference's image batch: padded right and below to multiples of ``side``, then resized to that size."""
    height, width = picture.shape[2:]
    return _resized(F.pad(picture, (0, -width % side, 0, -height % side)), side)


def _whole(each: Case, out, scorer, text: Tensor, size) -> dict[str, Tensor]:
    """One view of the image; the reference cuts the maps to the image's size before it resizes them."""
    logits = scorer(out, text)
    maps = _resized(logits.sigmoid()[:, :, : size[0], : size[1]], tuple(each.settings["orig"]))[0]
    return {"dense_clip_feat": out.features, "logits_pre_sigmoid": logits, "sem_seg_whole": maps}


def _protocol(each: Case, side: int) -> Protocol:
    slide = each.settings["slide"]
    stride = int(slide["kernel"] * (1 - slide["overlap"]))
    return Protocol(size=tuple(slide["out_res"]), window=slide["kernel"], stride=stride, view=side, whole_view=True)


def _sliding(each: Case, pipeline: Pipeline, picture: Tensor, text: Tensor) -> Tensor:
    """Windows and the whole view, through the pipeline but for its rounding of resized images to whole numbers."""
    resized = pipeline.protocol.size
    ((parts, boxes, whole),) = pipeline.read([_resized(picture, resized)[0]], [picture[0]])
    encoded = ImageFeatures(parts, boxes, resized, tuple(each.settings["orig"]), None, None, whole)
    maps = ClassMaps(encoded, text, pipeline.scorer, pipeline.protocol.window)
    return maps.maps(slice(0, len(text)), (0, encoded.size[0]))
