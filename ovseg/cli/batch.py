"""What ``predict`` and ``detect`` do alike: words once, then picture by picture, past those that cannot be read."""

import sys
from collections.abc import Callable
from pathlib import Path

from .common import own_share, print_json, say_done, say_failed


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
    suffix: str = "",
    resume: bool = False,
    as_json: bool = False,
    progress: bool = True,
):
    """Run a model over pictures; exit code 1 if any could not be read.

    Args:
        model: a ``BasePredictor``.
        words: a ``Vocabulary``.
        items, failed: see ``common.gather``.
        out: folder of the results.
        answer: (item, the picture read) → a result with ``save(out, stem)``, which writes its JSON last.
        describe: result → fields of a JSON line, and one line for people.
        done: what has happened to the pictures, in a word.
        suffix: of the JSON files' stems.
        resume, as_json, progress: as the options of that name.
    """
    from rich.console import Console
    from rich.markup import escape

    from ovseg.pictures.budget import is_out_of_memory, over_budget
    from ovseg.pictures.images import read_ahead, unique_stems
    from ovseg.pictures.pixels import ImageError
    from ovseg.progress import progress_bar

    rank, world = own_share()
    failed, total = ([] if rank else failed), len(items[rank::world]) + (0 if rank else len(failed))
    todo = list(zip(items, unique_stems(items), strict=True))[rank::world]
    console, saved = Console(stderr=True), []
    with progress_bar(progress and not as_json, console) as bar:
        task = bar.add_task("words", total=len(set(words.prompts)))
        model.set_classes(words, lambda finished: bar.update(task, completed=finished))
        bar.remove_task(task)
        if resume:
            todo = pending(todo, lambda stem: out / f"{stem}{suffix}.json", model)
        task = bar.add_task("pictures", total=len(todo))
        pictures = read_ahead([item for item, _ in todo], **model.reading)
        for (item, stem), (_, picture) in zip(todo, pictures, strict=True):
            bar.advance(task)
            if isinstance(picture, ImageError):
                failed.append(str(picture))
                continue
            try:
                result = answer(item, picture)
                paths = result.save(out, stem)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                failed.append(str(over_budget(str(item))))
                continue
            saved.append(paths)
            record, text = describe(result)
            if as_json:
                files = {kind: str(path) for kind, path in paths.items()}
                print_json({"image": str(item), **record, "files": files})
            elif len(items) <= 10:
                line = f"[bold]{escape(str(item))}[/bold]: {escape(text)}"
                console.print(line, highlight=False, soft_wrap=True)
    if saved and not as_json:
        say_done(len(saved), done, out, list(saved[0].values()))
    say_failed(failed, total)


def pending(todo: list, path: Callable, model) -> list:
    """Of (item, stem), those whose results are not there yet; says of how many they are.

    Args:
        todo: what there is to do.
        path: stem → the JSON of its results, which is written last.
        model: a ``BasePredictor`` with its words.
    """
    left = [(item, stem) for item, stem in todo if not is_done(path(stem), item, model.provenance)]
    if len(left) < len(todo):
        print(f"{len(todo) - len(left)} already there", file=sys.stderr)
    return left


def is_done(path: Path, item, provenance) -> bool:
    """Whether a JSON file records these words, weights and settings, and the very bytes of the picture."""
    from ovseg.compat.untrusted import read_json
    from ovseg.pictures.images import identify
    from ovseg.pictures.pixels import ImageError
    from ovseg.results.provenance import Provenance

    try:
        saved = Provenance.from_dict(read_json(path))
        return saved.picture is not None and not saved.differences(provenance.of(identify(item)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ImageError):
        return False
