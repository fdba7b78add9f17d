"""``ovseg methods``."""

TITLES = {
    "extractor": "extractors: -m NAME of predict, detect, compare; without training",
    "refiner": "refiners: --refine NAME",
    "scorer": "scorers: scorer=dict(type=…) of ovseg.load and of configs",
    "detector": "detectors",
    "segmentor": "segmentors",
}


def methods():
    """List extractors, refiners, scorers, detectors and segmentors, and what each needs.

    Times are those of one picture, as multiples of the tower's own; the last line says of what size.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ovseg.apis.methods import choices, measured_size

    rows, console = choices(), Console()
    for kind, title in TITLES.items():
        own = [row for row in rows if row.kind == kind]
        columns = ["name", "source", "needs", "time"] + ["published settings"] * (kind == "extractor")
        table = Table(*columns, title=title, title_justify="left")
        for row in own:
            cells = [row.name, row.source, row.needs, row.time] + [row.settings] * (kind == "extractor")
            table.add_row(*map(escape, cells))
        console.print(table)
    width, height = measured_size()
    console.print(f"times: one pass over {width}×{height} pixels, as multiples of the tower's own", highlight=False)
