"""What the verbs of the command share: their arguments, gathering pictures and words, saying what went wrong."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

Sources = Annotated[list[str], typer.Argument(metavar="PATH…", help="Pictures, folders, globs or URLs.")]
Classes = Annotated[str | None, typer.Option("-c", "--classes", help='Words: "cat|kitten, sofa, floor".')]
Words = Annotated[
    str | None, typer.Option("-v", "--vocabulary", help="A .txt, .json or .yaml file of words, or a benchmark: ade150.")
]
Background = Annotated[
    str | None, typer.Option("--background", help='"none", a threshold such as 0.3, or words "wall, sky".')
]
Weights = Annotated[
    str | None, typer.Option("-w", "--weights", help="tiny (embedded), openai, ViT-L-14/openai, FILE …")
]
Arch = Annotated[str | None, typer.Option(help="Architecture of open_clip, for weight files that do not say.")]
QuickGELU = Annotated[bool | None, typer.Option(help="Activation, for weight files that do not say.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Also look into folders inside a folder.")]
ShortSide = Annotated[int | None, typer.Option(help="Resize so that the short side has this many pixels.")]
Window = Annotated[int | None, typer.Option(help="Side of the sliding window in pixels; 0: the whole picture at once.")]
Stride = Annotated[int | None, typer.Option(help="Stride of the window in pixels.")]
Precision = Annotated[
    str | None, typer.Option(help="float32, or bfloat16 or float16: faster on some devices, some labels change.")
]
Templates = Annotated[
    str | None, typer.Option(help='Prompts: name, photo, openai_7, imagenet_80, maskclip_85, or "a sketch of a {}".')
]
Range = Annotated[
    str | None,
    typer.Option("--range", metavar="LOW,HIGH", help="Values that are black and white: 0,4095 for 12 bits in 16."),
]
Bands = Annotated[
    str | None, typer.Option("--bands", metavar="R,G,B", help="Bands of a raster to look at, counted from 1: 4,3,2.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line per picture instead of a summary.")]
ShowProgress = Annotated[bool, typer.Option(help="Show progress.")]


def read_words(classes: str | None, vocabulary: str | None, background: str | None = None):
    """The ``Vocabulary`` of ``-c`` or ``-v``.

    Raises:
        ValueError: both or neither, or an empty list.
    """
    from ovseg.text.vocabulary import Vocabulary

    if (classes is None) == (vocabulary is None):
        raise ValueError('say which words are meant, in one way: -c "cat, sofa, floor", or -v words.txt.')
    words = Vocabulary.parse(vocabulary if classes is None else _as_list(classes))
    return words if background is None else words.with_background(background)


def _as_list(classes: str) -> list[str]:
    """``-c`` is always a list of words, also where a single word happens to name a file or a benchmark."""
    if not classes.strip(" ,|"):
        raise ValueError('the list of words is empty: give at least one name, such as -c "cat, sofa, floor".')
    return [part for part in classes.split(",") if part.strip()]


def gather(sources: list[str], recursive: bool = False) -> tuple[list, list[str]]:
    """The pictures of all sources, and what is to be said of sources that hold none.

    Raises:
        ValueError: no picture at all.
    """
    from ovseg.pictures.images import iter_sources
    from ovseg.pictures.pixels import ImageError

    items, failed = [], []
    for source in sources:
        try:
            items += iter_sources(source, recursive)
        except ImageError as error:
            failed.append(str(error))
    if not items:
        raise ValueError(" ".join(failed))
    return items, failed


def own_share() -> tuple[int, int]:
    """(number of this process, number of processes) as set by torchrun or srun; (0, 1) otherwise.

    Process r of W takes the pictures r, r + W, r + 2W, …
    """
    for rank, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if rank in os.environ and world in os.environ:
            return int(os.environ[rank]), int(os.environ[world])
    return 0, 1


def protocol_settings(**settings) -> dict:
    """The protocol settings that were given; a window of 0 is the whole picture."""
    settings = {name: value for name, value in settings.items() if value is not None}
    if settings.get("window") == 0:
        settings["window"] = None
    return settings


def read_memory(memory: str, short_side: int | None = None) -> int:
    """Bytes of ``--memory``.

    Raises:
        ValueError: no amount of memory, or a size to resize to besides.
    """
    from ovseg.predict.memory import read_bytes

    if short_side is not None:
        raise ValueError("with --memory pictures are read at their own size: leave out --short-side.")
    return read_bytes(memory)


def read_numbers(text: str | None, option: str) -> tuple[float | int, ...] | None:
    """Numbers between commas; None stays None.

    Raises:
        ValueError: anything else.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) if part.strip().isdecimal() else float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{option} takes numbers with commas between them, such as {option} 0,4095; got {text!r}."
        ) from None


def print_json(record: dict):
    """One line of JSON on the standard output."""
    from ovseg.files import json_text

    print(json_text(record, indent=None), flush=True)


def say_done(count: int, done: str, out: Path, first: list[Path]):
    """How many pictures are done and what the files of one are called."""
    more = " …" if count > 1 else ""
    print(f"{count} picture(s) {done}; results in {out}: {', '.join(path.name for path in first)}{more}")


def say_failed(failed: list[str], total: int, how: str = ""):
    """List pictures that could not be read; exit code 1 if there are any. ``how``: more about that, in words."""
    if failed:
        how = f", {how}" if how else ""
        print(f"{len(failed)} of {total} picture(s) could not be read{how}:", *failed, sep="\n  ", file=sys.stderr)
        raise typer.Exit(1)
