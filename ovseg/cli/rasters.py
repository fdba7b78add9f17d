"""``ovseg predict --memory``: pictures by window, one after the other."""

from pathlib import Path

from .batch import pending
from .common import own_share, print_json, say_done, say_failed


def rasters(
    model,
    words,
    items: list,
    failed: list[str],
    out: Path,
    memory: int,
    *,
    resume: bool = False,
    as_json: bool = False,
    progress: bool = True,
):
    """Segment rasters within a memory budget; exit code 1 if any could not be read, or not all of it.

    Args:
        model: a ``Predictor``.
        words: a ``Vocabulary``.
        items, failed: see ``common.gather``.
        out: folder of the results.
        memory: bytes.
        resume, as_json, progress: as the options of that name.
    """
    from rich.console import Console
    from rich.markup import escape

    from ovseg.pictures.images import unique_stems
    from ovseg.pictures.pixels import ImageError
    from ovseg.pictures.raster import rasterio
    from ovseg.predict.strips import check_pipeline
    from ovseg.progress import progress_bar

    rasterio()  # both before words are encoded, which may take long
    check_pipeline(model.pipeline)

    rank, world = own_share()
    failed = [] if rank else failed
    todo, before = list(zip(items, unique_stems(items), strict=True))[rank::world], len(failed)
    console, saved = Console(stderr=True), []
    with progress_bar(progress and not as_json, console) as bar:
        task = bar.add_task("words", total=len(set(words.prompts)))
        model.set_classes(words, lambda finished: bar.update(task, completed=finished))
        bar.remove_task(task)
        total = before + len(todo)
        if resume:
            todo = pending(todo, lambda stem: out / f"{stem}.json", model)
        for item, stem in todo:
            try:
                run = model.raster(item, memory)
            except ImageError as error:
                failed.append(str(error))
                continue
            console.print(escape(f"{item}: {run.plan}"), highlight=False, soft_wrap=True)
            task = bar.add_task("windows", total=run.plan.windows)
            try:
                result = run.save(out, stem, resume, lambda count, task=task: bar.advance(task, count))
            except ImageError as error:  # values that show only while they are read
                failed.append(str(error))
                bar.remove_task(task)
                continue
            bar.remove_task(task)
            saved.append(result.paths)
            failed += [result.unread] if result.unread else []
            if as_json:
                files = {kind: str(path) for kind, path in result.paths.items()}
                print_json({"image": str(item), "areas": result.areas, "files": files, "unread": result.unread})
    if saved and not as_json:
        say_done(len(saved), "segmented", out, list(saved[0].values()))
    say_failed(failed, total, "in whole or in part")
