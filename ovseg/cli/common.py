"""What the verbs of the command share: their arguments, gathering pictures and words, saying what went wrong."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ovseg.printable import printable, say, say_json

from .completion import complete_weights

_RENDEZVOUS = {"MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "LOCAL_RANK"}

Sources = Annotated[list[str], typer.Argument(metavar="PATH…", help="Pictures, folders, globs or URLs.")]
Classes = Annotated[
    str | None, typer.Option("-c", "--classes", help='Words: "cat|kitten, sofa, floor"; "|" joins synonyms.')
]
Words = Annotated[
    str | None,
    typer.Option(
        "-v",
        "--vocabulary",
        help="A file of words (.txt, .json, .yaml; YOLO's, COCO's, Hugging Face's too), or a benchmark: ade150.",
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        "--background",
        help='"words": class 0 by names of stuff (sky, wall, tree, …); your own: "wall, sky"; a threshold such as 0.3, '
        'above 1 / the number of words; "none". One word alone is set against names of stuff.',
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "-w",
        "--weights",
        help="tiny (embedded), openai, ViT-L-14/openai, FILE …",
        autocompletion=complete_weights,
    ),
]
Arch = Annotated[str | None, typer.Option(help="Architecture of open_clip, for weight files that do not say.")]
QuickGELU = Annotated[bool | None, typer.Option(help="Activation, for weight files that do not say.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]


def _at_home(path: Path) -> Path:
    """A path, ``~`` replaced; shells do that only at the beginning of a word, not in ``--out=~/x``."""
    return Path(os.path.expanduser(path))


Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.", callback=_at_home)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Also replace files in OUT that ovseg did not write; its own always are.")
]
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
BoxFormat = Annotated[
    str | None,
    typer.Option(
        help="xyxy, xywh (corner and size) or cxcywh (center and size); with -normalized: divided by width and height."
    ),
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
    if classes is not None and not classes.strip(" ,|;.\n"):
        raise ValueError('the list of words is empty: give at least one name, such as -c "cat, sofa, floor".')
    words = Vocabulary.from_source(vocabulary) if classes is None else Vocabulary.from_words(classes)
    return words if background is None else words.with_background(background)


def read_stuff(background: str | None) -> list[str] | None:
    """The words of ``detect --background``; None for the usual ones.

    Raises:
        ValueError: a threshold, which detection has another option for.
    """
    from ovseg.text.background import Background, read_number

    if background is None or background.strip().casefold() == "words":
        return None
    number = read_number(background)
    if number is not None:
        raise ValueError(
            f'--background takes words against which things stand out, such as "sea, sand", and {background!r} is a '
            f"number: the lowest score of a detection is --score {number:g}."
        )
    return list(Background.parse(background).words)


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


def read_boxes(path: Path | None, items: list, box_format: str | None):
    """The ``BoxFile`` of ``--boxes``, None without it; says which pictures it does not name.

    Raises:
        ValueError: as of ``BoxFile``, or a format without boxes.
    """
    from ovseg.predict.box_file import BoxFile

    if path is None:
        if box_format is not None:
            raise ValueError("--box-format says how --boxes is to be read: give --boxes too, or leave it out.")
        return None
    boxes = BoxFile(path, items, box_format)
    if boxes.unnamed:
        more = " …" if len(boxes.unnamed) > 3 else ""
        names = ", ".join(map(str, boxes.unnamed[:3]))
        say(
            f"{path} names {len(boxes.unnamed)} of the pictures nowhere, so they get no boxes: {names}{more}",
            error=True,
        )
    return boxes


def own_share() -> tuple[int, int]:
    """(number of this process, number of processes) as set by torchrun or srun; (0, 1) otherwise.

    Process r of W takes the pictures r, r + W, r + 2W, …

    Raises:
        ValueError: the environment holds other things than these numbers.
    """
    for rank, world in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if rank in os.environ and world in os.environ:
            values = os.environ[rank].strip(), os.environ[world].strip()
            if not all(value.isdecimal() for value in values) or int(values[0]) >= int(values[1]):
                raise ValueError(
                    f"the environment says {rank}={values[0]} and {world}={values[1]}, which are no number of a "
                    "process and of all processes. If no launcher is at work, unset both."
                )
            number, total = map(int, values)
            if total > 1 and rank == "RANK" and not _RENDEZVOUS & os.environ.keys():
                say(
                    f"{rank}={number} and {world}={total} are set, so this process does one of {total} pictures, from "
                    f"number {number + 1} on. If it is the only one, they are left over from another job: unset both.",
                    error=True,
                )
            return number, total
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

    say_json(json_text(record, indent=None))


def say_done(count: int, done: str, out: Path, first: list[Path]):
    """How many pictures are done and what the files of one are called."""
    more = " …" if count > 1 else ""
    say(f"{count} picture(s) {done}; results in {out}: {', '.join(path.name for path in first)}{more}")


def say_failed(failed: list[str], total: int, how: str = "", unsaved: Sequence[str] = ()):
    """List pictures that could not be read, and those whose results could not be written; exit code 1 if there are any.

    ``how``: more about the first, in words.
    """
    how = f", {how}" if how else ""
    for lines, what in ((failed, f"could not be read{how}"), (unsaved, "have no results")):
        if lines:
            say(f"{len(lines)} of {total} picture(s) {what}:", *(f"  {printable(line)}" for line in lines), error=True)
    if failed or unsaved:
        raise typer.Exit(1)
