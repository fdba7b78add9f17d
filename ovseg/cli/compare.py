"""``ovseg compare PATH… -c "cat, sofa, floor"``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def compare(
    sources: Annotated[list[str], typer.Argument(metavar="PATH…", help="Pictures, folders, globs or URLs.")],
    classes: Annotated[str | None, typer.Option("-c", "--classes", help='Words: "cat|kitten, sofa, floor".')] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option("-v", "--vocabulary", help="A .txt, .json or .yaml file of words, or a benchmark: ade150."),
    ] = None,
    background: Annotated[
        str | None, typer.Option("--background", help='"none", a threshold such as 0.3, or words "wall, sky".')
    ] = None,
    methods: Annotated[
        str, typer.Option("-m", "--methods", help='"all" that need no other file, or names: "naclip, sclip".')
    ] = "all",
    weights: Annotated[
        str | None, typer.Option("-w", "--weights", help="tiny (embedded), openai, ViT-L-14/openai, FILE …")
    ] = None,
    quick_gelu: Annotated[bool | None, typer.Option(help="Activation, for weight files that do not say.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path("out"),
    own_protocol: Annotated[
        bool,
        typer.Option("--own-protocol", help="Keep each method's published sizes and windows instead of common ones."),
    ] = False,
    refine: Annotated[bool, typer.Option(help="Let methods refine their label maps as published.")] = True,
    short_side: Annotated[int | None, typer.Option(help="Resize so that the short side has this many pixels.")] = None,
    window: Annotated[
        int | None, typer.Option(help="Side of the sliding window in pixels; 0: the whole picture at once.")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Stride of the window in pixels.")] = None,
    templates: Annotated[
        str | None,
        typer.Option(help='Prompts: name, photo, openai_7, imagenet_80, maskclip_85, or "a sketch of a {}".'),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
):
    """Segment pictures by several methods side by side: what they see, how far they agree, what they cost.

    For every picture OUT gets a sheet of overlays (…_compare.png), a page with times, memory and agreement that needs
    no other file (…_compare.html) and the numbers (…_compare.json).  Methods that cannot take part are listed with the
    reason; the exit code is 1 if they were named, or if a picture cannot be read.
    """
    if (classes is None) == (vocabulary is None):
        raise ValueError('say which words to look for, in one way: -c "cat, sofa, floor", or -v words.txt.')
    from rich.console import Console

    from ovseg.apis.compare import Comparer
    from ovseg.predict.images import iter_sources, unique_stems
    from ovseg.predict.pixels import ImageError
    from ovseg.text.vocabulary import Vocabulary

    from .predict import _as_comma_string

    words = Vocabulary.parse(vocabulary if classes is None else _as_comma_string(classes))
    if background is not None:
        words = words.with_background(background)
    items, failed, left_out = [], [], {}
    for source in sources:
        try:
            items += iter_sources(source)
        except ImageError as error:
            failed.append(str(error))
    if not items:
        raise ValueError(" ".join(failed))
    if out.exists() and not out.is_dir():
        raise ValueError(f"cannot save into {out}: it is a file. Give a folder; it is made if need be.")
    settings = {"short_side": short_side, "window": window, "stride": stride, "templates": templates}
    settings = {name: value for name, value in settings.items() if value is not None}
    if settings.get("window") == 0:
        settings["window"] = None
    if not refine:
        settings["refine"] = []
    options = dict(device=device, quick_gelu=quick_gelu, own_protocol=own_protocol)
    comparer = Comparer(words, methods, weights, **options, **settings)

    console, total, saved = Console(stderr=True), len(items) + len(failed), []
    with console.status("") as status:
        if not progress:
            status.stop()
        for item, stem in zip(items, unique_stems(items), strict=True):
            try:
                found = comparer.compare(item, lambda name, item=item: status.update(f"{_shown(item)}: {name}"))
            except ImageError as error:
                failed.append(str(error))
                continue
            saved.append(_save(found, out, stem, item))
            left_out |= found.failed
            if len(items) <= 10:
                _summary(console, item, found)
    if saved:
        more = " …" if len(saved) > 1 else ""
        print(f"{len(saved)} picture(s) compared; results in {out}: {', '.join(p.name for p in saved[0])}{more}")
    for name, reason in left_out.items():
        print(f"{name} could not take part: {reason}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {total} picture(s) could not be read:", *failed, sep="\n  ", file=sys.stderr)
    if failed or (left_out and methods.lower() != "all"):
        raise typer.Exit(1)


def _save(found, out: Path, stem: str, item) -> list[Path]:
    from ovseg.compat.checkpoint import atomic_write
    from ovseg.predict.images import name_of

    paths = [out / f"{stem}_compare.{suffix}" for suffix in ("png", "html", "json")]  # the JSON last: all is there
    text = json.dumps({"image": str(item)} | found.to_dict(), indent=1, ensure_ascii=False, default=list) + "\n"
    with atomic_write(paths[0]) as temporary:
        found.plot().save(temporary, "PNG")
    for path, content in zip(paths[1:], (found.to_html(name_of(item)), text), strict=True):
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.encode("utf-8", "backslashreplace"))
    return paths


def _shown(item) -> str:
    from rich.markup import escape

    return escape(str(item))


def _summary(console, item, found):
    from rich.table import Table

    from ovseg.apis.draw_compare import seconds

    table = Table(
        "method", "own time", "alone", "memory", "with the majority", title=_shown(item), title_justify="left"
    )
    for entry, share in zip(found.entries, found.with_majority, strict=True):
        memory = "unknown" if entry.memory is None else f"{entry.memory / 2**20:.1f} MiB"
        table.add_row(entry.method, seconds(entry.own), seconds(entry.alone), memory, f"{share:.0%}")
    table.add_row("shared blocks", seconds(found.shared))
    console.print(table)
