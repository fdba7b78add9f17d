"""What ``predict`` and ``detect`` do alike: words once, then picture by picture, past those that cannot be read."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from ovseg.printable import printable, say

from .common import own_share, print_json, say_done, say_failed
from .output import NothingWritableError, Output


def batch(
    model,
    words,
    items: list,
    failed: list[str],
    out: Path,
    answer: Callable,
    describe: Callable,
    *,
    done: str,
    files_of: Callable[[Path, str], Mapping[str, Path]],
    changed: Callable | None = None,
    resume: bool = False,
    overwrite: bool = False,
    as_json: bool = False,
    progress: bool = True,
):
    """Run a model over pictures; exit code 1 if any could not be read, or its results not be written.

    Args:
        model: a ``BasePredictor``.
        words: a ``Vocabulary``.
        items, failed: see ``common.gather``.
        out: folder of the results.
        answer: (item, the picture read) → a result with ``save(out, stem)``, which writes its JSON last.
        describe: result → fields of a JSON line, and one line for people.
        done: what has happened to the pictures, in a word.
        files_of: (folder, stem) → what that writes, by kind, the JSON last.
        changed: provenance of the model → that of what ``answer`` makes of its results; None: the same.
        resume, overwrite, as_json, progress: as the options of that name.
    """
    from rich.console import Console
    from rich.markup import escape

    from ovseg.pictures.budget import is_out_of_memory, over_budget
    from ovseg.pictures.images import read_ahead
    from ovseg.pictures.pixels import ImageError
    from ovseg.progress import progress_bar

    rank, world = own_share()
    failed, total = ([] if rank else failed), len(items[rank::world]) + (0 if rank else len(failed))
    output = Output(out, items, files_of, overwrite)
    todo = list(zip(items, output.stems, strict=True))[rank::world]
    console, saved = Console(stderr=True), []
    with suppress(NothingWritableError), progress_bar(progress and not as_json, console) as bar:
        task = bar.add_task("words", total=len(set(words.prompts)))
        model.set_classes(words, lambda finished: bar.update(task, completed=finished))
        bar.remove_task(task)
        if resume:
            todo = pending(todo, output, changed(model.provenance) if changed else model.provenance)
        task = bar.add_task("pictures", total=len(todo))
        pictures = read_ahead([item for item, _ in todo], **model.reading)
        for (item, stem), (_, picture) in zip(todo, pictures, strict=True):
            bar.advance(task)
            if isinstance(picture, ImageError):
                failed.append(str(picture))
                continue
            try:
                result = answer(item, picture)
                paths = output.save(item, partial(result.save, out, stem, overwrite=overwrite))
            except ImageError as error:  # boxes that do not fit it
                failed.append(str(error))
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                failed.append(str(over_budget(str(item))))
                continue
            if paths is None:
                continue
            saved.append(paths)
            record, text = describe(result)
            if as_json:
                files = {kind: str(path) for kind, path in paths.items()}
                print_json({"image": str(item), **record, "files": files})
            elif len(items) <= 10:
                line = f"[bold]{escape(printable(item))}[/bold]: {escape(printable(text))}"
                console.print(line, highlight=False, soft_wrap=True)
    if saved and not as_json:
        say_done(len(saved), done, out, list(saved[0].values()))
    say_failed(failed, total, unsaved=output.unsaved)


def pending(todo: list, output: Output, provenance) -> list:
    """Of (item, stem), those whose results are not there yet; says of how many they are.

    Args:
        todo: what there is to do.
        output: where the results are.
        provenance: what they are made with, whatever the picture.
    """
    left = [(item, stem) for item, stem in todo if not is_done(output.files(stem), item, provenance)]
    if len(left) < len(todo):
        say(f"{len(todo) - len(left)} already there", error=True)
    return left


def is_done(files: Mapping[str, Path], item, provenance) -> bool:
    """Whether all files of results are there, and their JSON tells of these words, weights and settings, and of the
    very bytes of the picture."""
    from ovseg.compat.untrusted import read_json
    from ovseg.pictures.images import identify
    from ovseg.pictures.pixels import ImageError
    from ovseg.results.provenance import Provenance

    try:
        if not all(path.is_file() and path.stat().st_size for path in files.values()):
            return False
        saved = Provenance.from_dict(read_json(files["json"]))
        return saved.picture is not None and not saved.differences(provenance.of(identify(item)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ImageError):
        return False
