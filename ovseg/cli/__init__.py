"""The ``ovseg`` command: one file per verb, each imported when it is called, so that ``--help`` is instant."""

import os
import sys
import warnings
from contextlib import suppress
from importlib import import_module

import typer

from ovseg.compat.extras import MissingExtra
from ovseg.printable import say

from . import check_data, classify_boxes, compare, configs, detect, doctor, explain, locate, methods, predict, words

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
app.command("configs")(configs.configs)
app.command("words")(words.words)
app.command("doctor")(doctor.doctor)


def _config_verb(name: str, about: str):
    """A verb with the options of MMEngine's tools, parsed by ``main(argv)`` of the module of its name."""

    def run(context: typer.Context):
        raise typer.Exit(import_module(f"{__name__}.{name}").main(context.args))

    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, help=about, add_help_option=False, context_settings=passed_on)(run)


_config_verb("train", "Train a config. Needs MMSegmentation and MMDetection.")
_config_verb("test", "Measure configs on benchmarks. Needs MMSegmentation and MMDetection.")
_config_verb("export", "Write what was trained as one file. Needs MMSegmentation and MMDetection.")


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
    except (ValueError, KeyError, MissingExtra) as error:
        _end(error.args[0] if isinstance(error, KeyError) else error, 2)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        what = f"reading or writing failed: {error.strerror}{where}" if error.strerror else str(error)
        _end(f"{what}{'' if where or not error.strerror else ' (a stream). Results that are written are complete'}.", 2)
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
