"""``ovseg methods``."""


def methods():
    """List the methods, each with its paper and its published prediction settings."""
    from rich.console import Console
    from rich.table import Table

    from ovseg.registry import DENSE, names

    table = Table("method", "paper", "published settings")
    for name in names(DENSE):
        component = DENSE.get(name)
        settings = ", ".join(f"{key}={value}" for key, value in component.protocol.items())
        table.add_row(name.lower(), component.paper, settings)
    Console().print(table)
