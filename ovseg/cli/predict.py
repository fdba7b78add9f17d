"""``ovseg predict PATH… -c "cat, sofa, floor"``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    AsJson,
    Background,
    Classes,
    Device,
    Out,
    QuickGELU,
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
    given,
    own_share,
    read_words,
    say_done,
    say_failed,
)


def predict(
    sources: Sources,
    classes: Classes = None,
    vocabulary: Words = None,
    background: Background = None,
    method: Annotated[str, typer.Option("-m", "--method", help="See `ovseg methods`.")] = "naclip",
    weights: Weights = None,
    quick_gelu: QuickGELU = None,
    device: Device = "auto",
    out: Out = Path("out"),
    resume: Annotated[bool, typer.Option("--resume", help="Skip pictures that OUT has these very results of.")] = False,
    recursive: Recursive = False,
    short_side: ShortSide = None,
    window: Window = None,
    stride: Stride = None,
    refine: Annotated[list[str] | None, typer.Option(help='Refiners, such as pamr; "none" for none.')] = None,
    templates: Templates = None,
    as_json: AsJson = False,
    progress: ShowProgress = True,
):
    """Segment pictures by words of your own.

    For every picture OUT gets an overlay with a legend, a label PNG and a JSON with areas and masks.  Pictures that
    cannot be read are listed at the end (exit code 1); the others are done.  Under torchrun or srun every process takes
    its share of the pictures: torchrun --nproc_per_node 2 -m ovseg.cli predict FOLDER -c "cat, sofa".
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ovseg.apis import load
    from ovseg.predict.images import unique_stems
    from ovseg.predict.pixels import ImageError

    words = read_words(classes, vocabulary, background)
    items, failed = gather(sources, recursive)
    rank, world = own_share()
    failed, total = ([] if rank else failed), len(items[rank::world]) + (0 if rank else len(failed))
    todo = list(zip(items, unique_stems(items), strict=True))[rank::world]
    settings = given(short_side=short_side, window=window, stride=stride, templates=templates)
    if refine is not None:
        settings["refine"] = [name for name in refine if name.lower() != "none"]
    model = load(method, weights, device=device, quick_gelu=quick_gelu, **settings)

    console, saved = Console(stderr=True), []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not progress or as_json, transient=True) as bar:
        task = bar.add_task("words", total=len(set(words.queries)))
        model.set_classes(words, lambda done: bar.update(task, completed=done))
        bar.remove_task(task)
        task = bar.add_task("pictures", total=len(todo))
        for item, stem in todo:
            bar.advance(task)
            if resume and _is_done(out / f"{stem}.json", model):
                continue
            try:
                result = model.set_image(item).predict()
            except ImageError as error:
                failed.append(str(error))
            else:
                paths = result.save(out, stem)
                saved.append(paths)
                if as_json:
                    print(json.dumps(_line(item, result, paths), ensure_ascii=False), flush=True)
                elif len(items) <= 10:
                    _summary(bar.console, item, result)
    if saved and not as_json:
        say_done(len(saved), "segmented", out, list(saved[0].values()))
    say_failed(failed, total)


def _is_done(path: Path, model) -> bool:
    """Whether a picture's JSON, which is written last, tells of these words, weights and settings."""
    try:
        return model.made(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def _line(item, result, paths) -> dict:
    return {"image": str(item), "areas": result.areas, "files": {kind: str(path) for kind, path in paths.items()}}


def _summary(console, item, result):
    from rich.markup import escape

    found = ", ".join(
        f"{name} {share:.0%}" for name, share in sorted(result.areas.items(), key=lambda a: -a[1]) if share > 0
    )
    console.print(f"[bold]{escape(str(item))}[/bold]: {escape(found)}", highlight=False, soft_wrap=True)
