"""``ovseg detect PATH… -c "cat, dog"``."""

from pathlib import Path
from typing import Annotated

import typer

from .batch import batch
from .common import (
    Arch,
    AsJson,
    Bands,
    BoxFormat,
    Classes,
    Device,
    Out,
    Overwrite,
    Precision,
    QuickGELU,
    Range,
    Recursive,
    ShortSide,
    ShowProgress,
    Sources,
    Stride,
    Templates,
    Weights,
    Window,
    Words,
    gather,
    protocol_settings,
    read_boxes,
    read_numbers,
    read_stuff,
    read_words,
)
from .completion import complete_detectors


def detect(
    sources: Sources,
    classes: Classes = None,
    vocabulary: Words = None,
    method: Annotated[
        str,
        typer.Option(
            "-m",
            "--method",
            help="An extractor of `ovseg methods`, or a trained detector with --weights CHECKPOINT.",
            autocompletion=complete_detectors,
        ),
    ] = "clip_surgery",
    weights: Weights = None,
    arch: Arch = None,
    quick_gelu: QuickGELU = None,
    device: Device = "auto",
    out: Out = Path("out"),
    score_threshold: Annotated[float, typer.Option("--score", help="Lowest score, from 0 to 1.")] = 0.2,
    max_detections: Annotated[int, typer.Option("--most", help="Most detections of a picture.")] = 100,
    background: Annotated[
        str | None,
        typer.Option(
            "--background", help='Words against which things stand out: "sea, sand"; by default names of stuff.'
        ),
    ] = None,
    slice: Annotated[
        int | None, typer.Option(help="Detect in overlapping slices of so many pixels a side: finds small things.")
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(help="Share of a side that neighboring slices have in common; 0.2 unless given.")
    ] = None,
    boxes: Annotated[Path | None, typer.Option(help="Choose among these boxes: .json or .csv.")] = None,
    box_format: BoxFormat = None,
    masks: Annotated[bool, typer.Option(help="Draw masks.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Skip pictures that OUT has these very results of.")] = False,
    overwrite: Overwrite = False,
    recursive: Recursive = False,
    short_side: ShortSide = None,
    window: Window = None,
    stride: Stride = None,
    precision: Precision = None,
    templates: Templates = None,
    value_range: Range = None,
    bands: Bands = None,
    as_json: AsJson = False,
    progress: ShowProgress = True,
):
    """Find things by words of your own, without training: boxes with masks.

    For every picture OUT gets a drawing and a JSON in the manner of COCO.  Pictures that cannot be read are listed at
    the end (exit code 1); the others are done.
    """
    from ovseg.apis.load import load_detector
    from ovseg.results.detections import boxes_only, paths_of

    if resume and boxes is not None:
        raise ValueError("--resume cannot check that results come from the same --boxes: give one of the two.")
    words = read_words(classes, vocabulary)
    items, failed = gather(sources, recursive)
    chosen = read_boxes(boxes, items, box_format)
    settings = protocol_settings(
        short_side=short_side, window=window, stride=stride, precision=precision, templates=templates
    )
    settings |= protocol_settings(range=read_numbers(value_range, "--range"), bands=read_numbers(bands, "--bands"))
    settings |= protocol_settings(slice=slice, overlap=overlap)
    settings |= dict(score_threshold=score_threshold, max_detections=max_detections, inside=0.9)
    if background is not None:
        settings["background"] = read_stuff(background)
    model = load_detector(method, weights, device=device, arch=arch, quick_gelu=quick_gelu, **settings)

    def answer(item, picture):
        detections = model.set_image(picture).predict(
            boxes=None if chosen is None else chosen.of(item, picture.array.shape[:2])
        )
        return detections if masks else detections.without_masks()

    options = dict(resume=resume, overwrite=overwrite, as_json=as_json, progress=progress)
    options |= dict(done="searched", files_of=paths_of, changed=None if masks else boxes_only)
    batch(model, words, items, failed, out, answer, _describe, **options)


def _describe(detections) -> tuple[dict, str]:
    boxes = [[round(float(value), 2) for value in box] for box in detections.boxes]
    rows = [
        {"name": name, "score": round(float(score), 4), "box": box}
        for name, score, box in zip(detections.names, detections.scores, boxes, strict=True)
    ]
    text = ", ".join(f"{row['name']} {row['score']:.2f}" for row in rows[:8]) or "nothing"
    return {"detections": rows}, text + (f", {len(rows) - 8} more" if len(rows) > 8 else "")
