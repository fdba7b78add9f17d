"""``ovseg predict --memory``: pictures by window, one after the other."""

from contextlib import suppress
from functools import partial
from pathlib import Path

from ovseg.printable import printable

from .batch import pending
from .common import own_share, print_json, say_done, say_failed
from .output import NothingWritableError, Output


def rasters(
    model,
    words,
    items: list,
    failed: list[str],
    out: Path,
    memory: int,
    *,
    resume: bool = False,
    overwrite: bool = False,
    as_json: bool = False,
    progress: bool = True,
):
    """Segment rasters within a memory budget; exit code 1 if any could not be read in whole, or be written.

    Args:
        model: a ``Predictor``.
        words: a ``Vocabulary``.
        items, failed: see ``common.gather``.
        out: folder of the results.
        memory: bytes.
        resume, overwrite, as_json, progress: as the options of that name.
    """
    from rich.console import Console
    from rich.markup import escape

    from ovseg.apis.raster import files_of
    from ovseg.pictures.pixels import ImageError
    from ovseg.pictures.raster import rasterio
    from ovseg.predict.strips import check_pipeline
    from ovseg.progress import progress_bar

    rasterio()  # both before words are encoded, which may take long
    check_pipeline(model.pipeline)

    rank, world = own_share()
    failed = [] if rank else failed
    output = Output(out, items, files_of, overwrite)
    todo, before = list(zip(items, output.stems, strict=True))[rank::world], len(failed)
    console, saved = Console(stderr=True), []
    with suppress(NothingWritableError), progress_bar(progress and not as_json, console) as bar:
        task = bar.add_task("words", total=len(set(words.prompts)))
        model.set_classes(words, lambda finished: bar.update(task, completed=finished))
        bar.remove_task(task)
        total = before + len(todo)
        if resume:
            todo = pending(todo, output, model.provenance)
        for item, stem in todo:
            try:
                run = model.raster(item, memory)
            except ImageError as error:
                failed.append(str(error))
                continue
            console.print(escape(f"{printable(item)}: {run.plan}"), highlight=False, soft_wrap=True)
            task = bar.add_task("windows", total=run.plan.windows)
            how = dict(resume=resume, report=lambda count, task=task: bar.advance(task, count), overwrite=overwrite)
            try:
                result = output.save(item, partial(run.save, out, stem, **how))
            except ImageError as error:  # values that show only while they are read
                failed.append(str(error))
                result = None
            bar.remove_task(task)
            if result is None:
                continue
            saved.append(result.paths)
            failed += [result.unread] if result.unread else []
            if as_json:
                files = {kind: str(path) for kind, path in result.paths.items()}
                print_json({"image": str(item), "areas": result.areas, "files": files, "unread": result.unread})
    if saved and not as_json:
        say_done(len(saved), "segmented", out, list(saved[0].values()))
    say_failed(failed, total, "in whole or in part", output.unsaved)
