"""``ovseg compare PATH… -c "cat, sofa, floor"``."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ovseg.printable import printable, say

from .common import (
    Arch,
    Background,
    Classes,
    Device,
    Out,
    Overwrite,
    QuickGELU,
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
    read_words,
    say_done,
    say_failed,
)
from .completion import complete_method_list
from .output import NothingWritableError, Output

KINDS = {"sheet": "png", "page": "html", "json": "json"}  # the JSON last: all is there


def compare(
    sources: Sources,
    classes: Classes = None,
    vocabulary: Words = None,
    background: Background = None,
    methods: Annotated[
        str,
        typer.Option(
            "-m",
            "--methods",
            help='"all" that need no other file, or names: "naclip, sclip".',
            autocompletion=complete_method_list,
        ),
    ] = "all",
    weights: Weights = None,
    arch: Arch = None,
    quick_gelu: QuickGELU = None,
    device: Device = "auto",
    out: Out = Path("out"),
    overwrite: Overwrite = False,
    own_protocol: Annotated[
        bool,
        typer.Option("--own-protocol", help="Keep each method's published sizes and windows instead of common ones."),
    ] = False,
    refine: Annotated[bool, typer.Option(help="Let methods refine their label maps as published.")] = True,
    short_side: ShortSide = None,
    window: Window = None,
    stride: Stride = None,
    templates: Templates = None,
    progress: ShowProgress = True,
):
    """Segment pictures by several methods side by side: what they see, how far they agree, what they cost.

    For every picture OUT gets a sheet of overlays (…_compare.png), a page with times, memory and agreement that needs
    no other file (…_compare.html) and the numbers (…_compare.json).  Methods that cannot take part are listed with the
    reason; the exit code is 1 if they were named, or if a picture cannot be read.
    """
    from rich.console import Console

    from ovseg.apis.compare import Comparer
    from ovseg.pictures.pixels import ImageError

    words = read_words(classes, vocabulary, background)
    items, failed = gather(sources)
    left_out = {}
    output = Output(out, items, _paths_of, overwrite)
    settings = protocol_settings(short_side=short_side, window=window, stride=stride, templates=templates)
    if not refine:
        settings["refine"] = []
    options = dict(device=device, arch=arch, quick_gelu=quick_gelu, own_protocol=own_protocol)
    comparer = Comparer(words, methods, weights, **options, **settings)

    console, total, saved = Console(stderr=True), len(items) + len(failed), []
    with suppress(NothingWritableError), console.status("") as status:
        if not progress:
            status.stop()
        for item, stem in zip(items, output.stems, strict=True):
            try:
                comparison = comparer.compare(item, lambda name, item=item: status.update(f"{_escaped(item)}: {name}"))
            except ImageError as error:
                failed.append(str(error))
                continue
            left_out |= comparison.failed
            if (paths := output.save(item, partial(_save, comparison, output.files(stem), item))) is None:
                continue
            saved.append(list(paths.values()))
            if len(items) <= 10:
                _summary(console, item, comparison)
    if saved:
        say_done(len(saved), "compared", out, saved[0])
    for name, reason in left_out.items():
        say(f"{name} could not take part: {reason}", error=True)
    say_failed(failed, total, unsaved=output.unsaved)
    if left_out and methods.lower() != "all":
        raise typer.Exit(1)


def _paths_of(out: Path, stem: str) -> dict[str, Path]:
    return {kind: out / f"{stem}_compare.{suffix}" for kind, suffix in KINDS.items()}


def _save(comparison, paths: dict[str, Path], item) -> dict[str, Path]:
    from ovseg.files import atomic_write, write_json, write_text
    from ovseg.marks import save_png
    from ovseg.pictures.images import name_of

    with atomic_write(paths["sheet"]) as draft:
        save_png(comparison.plot(), draft)
    write_text(paths["page"], comparison.to_html(name_of(item)))
    files = {kind: path.name for kind, path in paths.items() if kind != "json"}
    write_json(paths["json"], {"image": str(item)} | comparison.to_dict() | {"files": files})
    return paths


def _escaped(item) -> str:
    from rich.markup import escape

    return escape(printable(item))


def _summary(console, item, comparison):
    from rich.table import Table

    from ovseg.apis.draw_compare import seconds

    table = Table(
        "method", "own time", "alone", "memory", "with the majority", title=_escaped(item), title_justify="left"
    )
    for entry, share in zip(comparison.entries, comparison.with_majority, strict=True):
        memory = "unknown" if entry.memory is None else f"{entry.memory / 2**20:.1f} MiB"
        table.add_row(entry.method, seconds(entry.own), seconds(entry.alone), memory, f"{share:.0%}")
    table.add_row("shared blocks", seconds(comparison.shared))
    console.print(table)
