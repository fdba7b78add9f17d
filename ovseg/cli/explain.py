"""``ovseg explain PATH… -c "cat, dog"``."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ovseg.printable import say

from .common import (
    Arch,
    Classes,
    Device,
    Out,
    Overwrite,
    QuickGELU,
    ShortSide,
    ShowProgress,
    Sources,
    Templates,
    Weights,
    Words,
    gather,
    protocol_settings,
    read_words,
    say_failed,
)
from .output import NothingWritableError, Output

HEADS = "heads.json"


def explain(
    sources: Sources,
    classes: Classes = None,
    vocabulary: Words = None,
    weights: Weights = None,
    arch: Arch = None,
    quick_gelu: QuickGELU = None,
    device: Device = "auto",
    out: Out = Path("out"),
    overwrite: Overwrite = False,
    heads: Annotated[
        bool,
        typer.Option("--heads", help="Also say in words what every head looks for; needs two pictures or more."),
    ] = False,
    short_side: ShortSide = None,
    templates: Templates = None,
    progress: ShowProgress = True,
):
    """Take apart why pictures match words: which heads of which blocks add to the cosine, and from where.

    For every picture OUT gets heat maps (…_explain.png) and a JSON with what every head and feed-forward adds to every
    class (…_explain.json); the parts add up to the cosine.  With --heads, heads.json names every head by the words that
    explain how it varies over the pictures.
    """

    from ovseg.apis.explain import Explainer
    from ovseg.files import write_json
    from ovseg.marks import check_own
    from ovseg.pictures.pixels import ImageError
    from ovseg.progress import progress_bar

    words = read_words(classes, vocabulary)
    items, failed = gather(sources)
    if heads and len(items) < 2:
        raise ValueError("--heads names heads by what varies from picture to picture: give two pictures or more.")
    output = Output(out, items, _paths_of, overwrite)
    if heads:
        check_own([out / HEADS], overwrite)
    settings = protocol_settings(short_side=short_side, templates=templates)
    explainer = Explainer(weights, device=device, arch=arch, quick_gelu=quick_gelu, **settings)

    provenance, good = explainer.model.engine.provenance(words), []
    total = len(items) + len(failed)
    with suppress(NothingWritableError), progress_bar(progress) as bar:
        task = bar.add_task("pictures", total=len(items))
        for item, stem in zip(items, output.stems, strict=True):
            bar.advance(task)
            try:
                explanation = explainer.explain(item, words)
            except ImageError as error:
                failed.append(str(error))
                continue
            good.append(item)
            about = {"image": str(item)} | provenance.of(explanation.picture).to_dict()
            if output.save(item, partial(_save, explanation, about, output.files(stem))) and len(items) <= 10:
                say(*_summary(item, explanation))
        if heads and len(good) > 1:
            task = bar.add_task("heads", total=len(good))
            named = explainer.name_heads(good, words, progress=lambda done: bar.update(task, completed=done))
            named = [[[{"word": w, "share": s} for w, s in head] for head in block] for block in named]
            about = {"format": "ovseg-heads", "format_version": 1} | provenance.to_dict()
            named = about | {"pictures": len(good), "heads": named}
            output.save(HEADS, lambda: write_json(out / HEADS, named))
    if len(good) > len(output.unsaved):
        say(f"{len(good) - len(output.unsaved)} picture(s) explained; results in {out}.")
    if heads and len(good) < 2:
        say("heads were not named: that needs two readable pictures or more.", error=True)
    say_failed(failed, total, unsaved=output.unsaved)


def _paths_of(out: Path, stem: str) -> dict[str, Path]:
    return {"maps": out / f"{stem}_explain.png", "json": out / f"{stem}_explain.json"}


def _save(explanation, about: dict, paths: dict[str, Path]) -> dict[str, Path]:
    from ovseg.files import atomic_write, write_json
    from ovseg.marks import save_png

    with atomic_write(paths["maps"]) as draft:
        save_png(explanation.plot(), draft)
    about = {"format": "ovseg-explanation", "format_version": 1} | about
    write_json(paths["json"], about | explanation.to_dict() | {"files": {"maps": paths["maps"].name}})  # last
    return paths


def _summary(item, explanation) -> list[str]:
    lines = [f"{item}: every sum of parts equals its cosine within {explanation.error:.1e}"]
    for index in sorted(range(len(explanation.cosine)), key=lambda i: -explanation.cosine[i])[:5]:
        top = ", ".join(f"{block}.{head} {part:+.3f}" for block, head, part in explanation.strongest(index, 3))
        name, cosine = explanation.vocabulary.names[index], explanation.cosine[index]
        lines.append(f"  {name} {cosine:+.3f}   strongest block.head: {top}")
    return lines
