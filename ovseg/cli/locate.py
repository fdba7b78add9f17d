"""``ovseg locate PATH… -p "a red umbrella"``."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ovseg.printable import say

from .common import (
    Arch,
    AsJson,
    Device,
    Out,
    Overwrite,
    QuickGELU,
    Recursive,
    Sources,
    Weights,
    gather,
    print_json,
    say_done,
    say_failed,
)
from .output import NothingWritableError, Output


def locate(
    sources: Sources,
    phrases: Annotated[
        list[str], typer.Option("-p", "--phrase", help='What to find: "a red umbrella". May be given more than once.')
    ],
    weights: Weights = None,
    arch: Arch = None,
    quick_gelu: QuickGELU = None,
    device: Device = "auto",
    alpha: Annotated[float, typer.Option(help="Price of area: larger gives tighter boxes.")] = 0.8,
    temperature: Annotated[float, typer.Option(help="Smaller stresses the best regions.")] = 0.01,
    size: Annotated[
        int | None, typer.Option(help="Side in pixels the picture is squashed to; by default that of the weights.")
    ] = None,
    out: Out = Path("out"),
    overwrite: Overwrite = False,
    recursive: Recursive = False,
    as_json: AsJson = False,
):
    """Find things by phrases of your own: one box per phrase, also for what is not there (see its score).

    For every picture OUT gets a PNG with the boxes, over the heat map if there is one phrase, and a JSON.  Pictures
    that cannot be read are listed at the end (exit code 1); the others are done.
    """
    if any(not phrase.strip() for phrase in phrases):
        raise ValueError('a phrase is blank: say what to look for, such as -p "a red umbrella".')
    from ovseg.apis.locate import Locator, paths_of, save_locations
    from ovseg.pictures.pixels import ImageError

    items, failed = gather(sources, recursive)
    total, phrases = len(items) + len(failed), list(dict.fromkeys(phrases))
    output = Output(out, items, paths_of, overwrite)
    options = dict(device=device, arch=arch, quick_gelu=quick_gelu, alpha=alpha, temperature=temperature, size=size)
    model, saved = Locator(weights, **options), []
    model.encoder(phrases)  # a phrase that is too long is refused before any picture is looked at
    with suppress(NothingWritableError):
        for item, stem in zip(items, output.stems, strict=True):
            try:
                model.set_image(item)
            except ImageError as error:
                failed.append(str(error))
                continue
            results = model.locate(phrases)
            drawing = results[0].plot() if len(results) == 1 else None
            save = partial(save_locations, results, out, stem, drawing, overwrite)
            if (paths := output.save(item, save)) is None:
                continue
            saved.append(paths)
            if as_json:
                locations = [each.to_dict() for each in results]
                files = {kind: str(path) for kind, path in paths.items()}
                print_json({"image": str(item), "locations": locations, "files": files})
            elif len(items) <= 10:
                for each in results:
                    box = ", ".join(f"{value:.0f}" for value in each.box)
                    place = f"box {box} (x1, y1, x2, y2), score {each.score:.3f}"
                    say(f"{item}: {each.phrase}: {place}", error=True)
    if saved and not as_json:
        say_done(len(saved), "searched", out, list(saved[0].values()))
    say_failed(failed, total, unsaved=output.unsaved)
