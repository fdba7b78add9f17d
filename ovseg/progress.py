"""The progress bar: on the error stream, and only where a person looks at it."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def progress_bar(visible: bool = True, console: "Console | None" = None) -> "Progress":
    """A context manager with rich's ``add_task``, ``advance`` and ``update``; it leaves nothing on the screen.

    Args:
        visible: False for a bar that is never drawn; it is not drawn into files either.
        console: where lines are printed meanwhile; the error stream if None.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    disable = not (visible and sys.stderr.isatty())
    console = console or Console(stderr=True)
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=disable, transient=True)


def track(items: Sequence, description: str) -> Iterator:
    """The items, one by one, under a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=len(items))
        for item in items:
            yield item
            bar.advance(task)
