"""``ovseg explain PATH… -c "cat, dog"``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .common import (
    Arch,
    Classes,
    Device,
    Out,
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


def explain(
    sources: Sources,
    classes: Classes = None,
    vocabulary: Words = None,
    weights: Weights = None,
    arch: Arch = None,
    quick_gelu: QuickGELU = None,
    device: Device = "auto",
    out: Out = Path("out"),
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
    from ovseg.files import atomic_write, write_json
    from ovseg.pictures.images import unique_stems
    from ovseg.pictures.pixels import ImageError
    from ovseg.progress import progress_bar

    words = read_words(classes, vocabulary)
    items, failed = gather(sources)
    if heads and len(items) < 2:
        raise ValueError("--heads names heads by what varies from picture to picture: give two pictures or more.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"cannot save into {out}: it is a file. Give a folder; it is made if need be.")
    settings = protocol_settings(short_side=short_side, templates=templates)
    explainer = Explainer(weights, device=device, arch=arch, quick_gelu=quick_gelu, **settings)

    provenance, good = explainer.model.engine.provenance(words), []
    total = len(items) + len(failed)
    with progress_bar(progress) as bar:
        task = bar.add_task("pictures", total=len(items))
        for item, stem in zip(items, unique_stems(items), strict=True):
            bar.advance(task)
            try:
                explanation = explainer.explain(item, words)
            except ImageError as error:
                failed.append(str(error))
                continue
            good.append(item)
            with atomic_write(out / f"{stem}_explain.png") as temporary:
                explanation.plot().save(temporary, "PNG")
            about = {"image": str(item)} | provenance.of(explanation.picture).to_dict()
            write_json(out / f"{stem}_explain.json", about | explanation.to_dict())  # last: the PNG is there
            if len(items) <= 10:
                print(_summary(item, explanation))
        if heads and len(good) > 1:
            task = bar.add_task("heads", total=len(good))
            named = explainer.name_heads(good, words, progress=lambda done: bar.update(task, completed=done))
            named = [[[{"word": w, "share": s} for w, s in head] for head in block] for block in named]
            write_json(out / "heads.json", provenance.to_dict() | {"pictures": len(good), "heads": named})
    if good:
        print(f"{len(good)} picture(s) explained; results in {out}.")
    if heads and len(good) < 2:
        print("heads were not named: that needs two readable pictures or more.", file=sys.stderr)
    say_failed(failed, total)


def _summary(item, explanation) -> str:
    lines = [f"{item}: every sum of parts equals its cosine within {explanation.error:.1e}"]
    for index in sorted(range(len(explanation.cosine)), key=lambda i: -explanation.cosine[i])[:5]:
        top = ", ".join(f"{block}.{head} {part:+.3f}" for block, head, part in explanation.strongest(index, 3))
        lines.append(
            f"  {explanation.vocabulary.names[index]} {explanation.cosine[index]:+.3f}   strongest block.head: {top}"
        )
    return "\n".join(lines)
