"""The ``ovseg`` command: one file per verb, each imported when it is called, so that ``--help`` is instant."""

import os
import sys
import warnings
from contextlib import suppress

import typer

from ovseg.printable import say

from . import check_data, classify_boxes, compare, detect, doctor, explain, locate, methods, predict, words

app = typer.Typer(
    name="ovseg",
    help="Open-vocabulary dense prediction: a picture and any words in, a segmentation or boxes out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("predict")(predict.predict)
app.command("detect")(detect.detect)
app.command("classify-boxes")(classify_boxes.classify_boxes)
app.command("compare")(compare.compare)
app.command("explain")(explain.explain)
app.command("locate")(locate.locate)
app.command("check-data")(check_data.check_data)
app.command("methods")(methods.methods)
app.command("words")(words.words)
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")):
    if version:
        from ovseg import __version__

        print(__version__)
        raise typer.Exit()


def main(args: list[str] | None = None):
    """Entry point: what a user can mend is said in one paragraph, with exit code 2; the rest is a traceback."""
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}", error=True)
    try:
        try:
            app(args, prog_name="ovseg")
        finally:
            if sys.stdout is not None and not sys.stdout.closed:
                sys.stdout.flush()
    except (ValueError, KeyError) as error:
        _end(error.args[0] if isinstance(error, KeyError) else error, 2)
    except OSError as error:
        _end(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2)
    except KeyboardInterrupt:
        _end("interrupted; what was written is complete.", 130)


def _end(message: object, code: int):
    """Say it and end the program, also where the streams take nothing any more."""
    with suppress(OSError):
        say(f"ovseg: {message}", error=True)
    try:
        sys.stdout.flush()
    except (
        OSError,
        ValueError,
        AttributeError,
    ):  # full, closed, or none: what is left cannot be printed at exit either
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


if __name__ == "__main__":
    main()
