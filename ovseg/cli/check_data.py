"""``ovseg check-data``."""

from pathlib import Path
from typing import Annotated

import typer

from ovseg.printable import printable


def check_data(
    config: Annotated[Path, typer.Argument(help="A training config.")],
    split: Annotated[list[str] | None, typer.Option(help="train, val, test; all that the config has.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first pictures of each split.")] = None,
):
    """Read all pictures and labels of a config: histogram, impossible ids, missing files, sizes that differ."""
    from rich.console import Console
    from rich.markup import escape

    from ovseg.engine import check_data as data
    from ovseg.engine.config import load_config
    from ovseg.progress import track

    cfg, console, broken = load_config(config), Console(), 0
    wanted = split or list(data.splits(cfg))
    if not wanted:
        raise ValueError(f"{config} names no data: it has none of train_dataloader, val_dataloader, test_dataloader.")
    for name in wanted:
        report = data.check_split(cfg, name, limit, lambda indices, name=name: track(indices, name))
        console.print(_table(name, report))
        for line in report.problems[:20]:
            console.print(escape(printable(line)), style="red", highlight=False)
        if len(report.problems) > 20:
            console.print(f"… and {len(report.problems) - 20} more", style="red")
        broken += len(report.problems)
    if broken:
        console.print(f"{broken} problem(s) found.")
        raise typer.Exit(1)
    console.print("No problem found.")


def _table(name: str, report):
    from rich.markup import escape
    from rich.table import Table

    ignored = report.ignored / max(1, report.total)
    table = Table("id", "class", "pictures", "share of labeled pixels", title=f"{name}: {report.count} pictures, "
                  f"{100 * ignored:.1f} % of the pixels ignored")  # fmt: skip
    labeled = max(1, report.pixels.sum())
    for index, label in enumerate(report.classes):
        share = f"{100 * report.pixels[index] / labeled:.2f} %" if report.pixels[index] else "none"
        table.add_row(str(index), escape(printable(label)), str(report.images[index]), share)
    return table
