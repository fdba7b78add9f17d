"""``ovseg predict PATH… -c "cat, sofa, floor"``."""

from pathlib import Path
from typing import Annotated

import typer

from .batch import batch
from .common import (
    Arch,
    AsJson,
    Background,
    Bands,
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
    read_memory,
    read_numbers,
    read_words,
)
from .completion import complete_methods, complete_refiners
from .rasters import rasters


def predict(
    sources: Sources,
    classes: Classes = None,
    vocabulary: Words = None,
    background: Background = None,
    method: Annotated[
        str, typer.Option("-m", "--method", help="See `ovseg methods`.", autocompletion=complete_methods)
    ] = "naclip",
    weights: Weights = None,
    arch: Arch = None,
    quick_gelu: QuickGELU = None,
    device: Device = "auto",
    out: Out = Path("out"),
    resume: Annotated[bool, typer.Option("--resume", help="Skip pictures that OUT has these very results of.")] = False,
    overwrite: Overwrite = False,
    recursive: Recursive = False,
    short_side: ShortSide = None,
    window: Window = None,
    stride: Stride = None,
    precision: Precision = None,
    refine: Annotated[
        list[str] | None,
        typer.Option(help='Refiners, such as pamr; "none" for none.', autocompletion=complete_refiners),
    ] = None,
    templates: Templates = None,
    memory: Annotated[
        str | None,
        typer.Option(help="2GB, 800MB, …: read pictures by window at their own size, in no more memory than that."),
    ] = None,
    value_range: Range = None,
    bands: Bands = None,
    as_json: AsJson = False,
    progress: ShowProgress = True,
):
    """Segment pictures by words of your own.

    For every picture OUT gets an overlay with a legend, a label PNG and a JSON with areas and masks.  Pictures that
    cannot be read are listed at the end (exit code 1); the others are done.  Under torchrun or srun every process takes
    its share of the pictures: torchrun --nproc_per_node 2 -m ovseg.cli predict FOLDER -c "cat, sofa".

    With --memory the labels of a picture of any size are made strip by strip, as a TIFF with its georeference, and
    --resume goes on where an interrupted run stopped.
    """
    from ovseg.apis.load import load
    from ovseg.results.store import paths_of

    words = read_words(classes, vocabulary, background)
    items, failed = gather(sources, recursive)
    settings = protocol_settings(
        short_side=short_side, window=window, stride=stride, precision=precision, templates=templates
    )
    settings |= protocol_settings(range=read_numbers(value_range, "--range"), bands=read_numbers(bands, "--bands"))
    if refine is not None:
        settings["refine"] = [name for name in refine if name.lower() != "none"]
    if memory is not None:
        budget = read_memory(memory, short_side)
        settings |= dict(short_side=None, size=None)
    options = dict(resume=resume, overwrite=overwrite, as_json=as_json, progress=progress)
    model = load(method, weights, device=device, arch=arch, quick_gelu=quick_gelu, **settings)
    if memory is not None:
        rasters(model, words, items, failed, out, budget, **options)
        return
    options |= dict(done="segmented", files_of=paths_of)
    batch(model, words, items, failed, out, lambda _, picture: model.set_image(picture).predict(), _describe, **options)


def _describe(result) -> tuple[dict, str]:
    shares = sorted(result.areas.items(), key=lambda area: -area[1])
    return {"areas": result.areas}, ", ".join(f"{name} {share:.0%}" for name, share in shares if share > 0)
