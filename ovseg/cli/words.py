"""``ovseg words``."""

from typing import Annotated

import typer

from ovseg.printable import say


def words(
    weights: Annotated[str | None, typer.Option("-w", "--weights", help="Which weights.")] = None,
):
    """List the words the weights have learned, where they are limited to some (the embedded model's are)."""
    from ovseg.towers import load_tower

    card = load_tower(weights).card
    if card.words is None:
        say(f"{card.name} is open: it may know any word.")
    else:
        say(*card.words)
