"""``ovseg classify-boxes PATH… --boxes FILE -c "cat, dog"``."""

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    Arch,
    BoxFormat,
    Classes,
    Device,
    QuickGELU,
    Recursive,
    Sources,
    Templates,
    Weights,
    Words,
    gather,
    print_json,
    protocol_settings,
    read_boxes,
    read_words,
    say_failed,
)
from .completion import complete_methods


def classify_boxes(
    sources: Sources,
    boxes: Annotated[Path, typer.Option(help="Boxes in pixels: .json ([[x1, y1, x2, y2], …] or COCO's) or .csv.")],
    classes: Classes = None,
    vocabulary: Words = None,
    method: Annotated[
        str, typer.Option("-m", "--method", help="Extractor of roi and mask.", autocompletion=complete_methods)
    ] = "clip_surgery",
    weights: Weights = None,
    arch: Arch = None,
    quick_gelu: QuickGELU = None,
    device: Device = "auto",
    readout: Annotated[
        list[str] | None, typer.Option(help="roi, mask, crop, masked_crop; several are averaged.")
    ] = None,
    box_format: BoxFormat = None,
    margin: Annotated[list[float] | None, typer.Option(help="How many times larger a crop is than its box.")] = None,
    recursive: Recursive = False,
    templates: Templates = None,
):
    """Name given boxes: one JSON line per picture, each box with its best words.

    Boxes without area, or beyond the picture, have a score of 0.  Pictures that cannot be read are listed at the end
    (exit code 1); the others are done.
    """
    from ovseg.apis.load import load_detector
    from ovseg.pictures.images import load_image
    from ovseg.pictures.pixels import ImageError
    from ovseg.predict.name_boxes import BoxNamer
    from ovseg.regions.crops import MARGINS

    words = read_words(classes, vocabulary)
    items, failed = gather(sources, recursive)
    total = len(items) + len(failed)
    chosen = read_boxes(boxes, items, box_format)
    model = load_detector(
        method, weights, device=device, arch=arch, quick_gelu=quick_gelu, **protocol_settings(templates=templates)
    )
    namer = BoxNamer(model.engine, readout or ("crop", "masked_crop"), margin or MARGINS)
    model.set_classes(words)
    for item in items:
        try:
            picture = load_image(item, **model.reading)
            names = model.name_boxes(picture, chosen.of(item, picture.array.shape[:2]), namer)
        except ImageError as error:
            failed.append(str(error))
        else:
            print_json({"image": str(item), "boxes": names})
    say_failed(failed, total)
