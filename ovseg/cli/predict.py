"""``ovseg predict PATH… -c "cat, sofa, floor"``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def predict(
    sources: Annotated[list[str], typer.Argument(metavar="PATH…", help="Pictures, folders, globs or URLs.")],
    classes: Annotated[str | None, typer.Option("-c", "--classes", help='Words: "cat|kitten, sofa, floor".')] = None,
    vocabulary: Annotated[
        str | None,
        typer.Option("-v", "--vocabulary", help="A .txt, .json or .yaml file of words, or a benchmark: ade150."),
    ] = None,
    background: Annotated[
        str | None, typer.Option("--background", help='"none", a threshold such as 0.3, or words "wall, sky".')
    ] = None,
    method: Annotated[str, typer.Option("-m", "--method", help="See `ovseg methods`.")] = "naclip",
    weights: Annotated[
        str | None, typer.Option("-w", "--weights", help="tiny (embedded), openai, ViT-L-14/openai, FILE …")
    ] = None,
    quick_gelu: Annotated[bool | None, typer.Option(help="Activation, for weight files that do not say.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path("out"),
    resume: Annotated[bool, typer.Option("--resume", help="Skip pictures that already have results in OUT.")] = False,
    recursive: Annotated[bool, typer.Option("--recursive", help="Also look into folders inside a folder.")] = False,
    short_side: Annotated[int | None, typer.Option(help="Resize so that the short side has this many pixels.")] = None,
    window: Annotated[
        int | None, typer.Option(help="Side of the sliding window in pixels; 0: the whole picture at once.")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Stride of the window in pixels.")] = None,
    refine: Annotated[list[str] | None, typer.Option(help='Refiners, such as pamr; "none" for none.')] = None,
    templates: Annotated[
        str | None,
        typer.Option(help='Prompts: name, photo, openai_7, imagenet_80, maskclip_85, or "a sketch of a {}".'),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line per picture instead of a summary.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
):
    """Segment pictures by words of your own.

    For every picture OUT gets an overlay with a legend, a label PNG and a JSON with areas and masks.  Pictures that
    cannot be read are listed at the end (exit code 1); the others are done.
    """
    if (classes is None) == (vocabulary is None):
        raise ValueError('say which words to look for, in one way: -c "cat, sofa, floor", or -v words.txt.')
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ovseg.apis import load
    from ovseg.predict.images import iter_sources, unique_stems
    from ovseg.predict.pixels import ImageError
    from ovseg.text.vocabulary import Vocabulary

    words = Vocabulary.parse(vocabulary if classes is None else _as_comma_string(classes))
    if background is not None:
        words = words.with_background(background)
    items, failed = [], []
    for source in sources:
        try:
            items += iter_sources(source, recursive)
        except ImageError as error:
            failed.append(str(error))
    if not items:
        raise ValueError(" ".join(failed))
    settings = {"short_side": short_side, "window": window, "stride": stride, "templates": templates}
    settings = {name: value for name, value in settings.items() if value is not None}
    if settings.get("window") == 0:
        settings["window"] = None
    if refine is not None:
        settings["refine"] = [name for name in refine if name.lower() != "none"]
    model = load(method, weights, device=device, quick_gelu=quick_gelu, **settings)

    console, saved, total = Console(stderr=True), [], len(items) + len(failed)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not progress or as_json, transient=True) as bar:
        task = bar.add_task("words", total=len(set(words.queries)))
        model.set_classes(words, lambda done: bar.update(task, completed=done))
        bar.remove_task(task)
        task = bar.add_task("pictures", total=len(items))
        for item, stem in zip(items, unique_stems(items), strict=True):
            bar.advance(task)
            if resume and (out / f"{stem}.json").exists():  # the JSON is written last
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
        print(
            f"{len(saved)} picture(s) segmented; results in {out}: "
            + ", ".join(p.name for p in saved[0].values())
            + (" …" if len(saved) > 1 else "")
        )
    if failed:
        print(f"{len(failed)} of {total} picture(s) could not be read:", *failed, sep="\n  ", file=sys.stderr)
        raise typer.Exit(1)


def _as_comma_string(classes: str) -> str:
    """``-c`` is always a list of words, also where a single word happens to name a file or a benchmark."""
    if not classes.strip(" ,|"):
        raise ValueError('the list of words is empty: give at least one name, such as -c "cat, sofa, floor".')
    return [part for part in classes.split(",") if part.strip()]


def _line(item, result, paths) -> dict:
    return {"image": str(item), "areas": result.areas, "files": {kind: str(path) for kind, path in paths.items()}}


def _summary(console, item, result):
    from rich.markup import escape

    found = ", ".join(
        f"{name} {share:.0%}" for name, share in sorted(result.areas.items(), key=lambda a: -a[1]) if share > 0
    )
    console.print(f"[bold]{escape(str(item))}[/bold]: {escape(found)}", highlight=False, soft_wrap=True)
