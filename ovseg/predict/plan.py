"""How a raster is cut into strips, and what each of them takes of a memory budget."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

from ovseg.dense.windows import windows

from .memory import as_text

LEAST_MAPS = 2**24  # bytes; with less, labels would be made a few pixels at a time


class Strip(NamedTuple):
    """Rows of windows [first, stop) that are held together, and the rows of pixels [top, bottom) that they decide: no
    other window covers these."""

    first: int
    stop: int
    top: int
    bottom: int


@dataclass(frozen=True)
class Grid:
    """The windows of a raster.

    height, width  of the raster
    tops, lefts    first row of each row of windows, first column of each column
    window         (height, width) of one, in pixels
    """

    height: int
    width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]
    window: tuple[int, int]

    @classmethod
    def of(cls, height: int, width: int, window: int, stride: int) -> "Grid":
        tops = tuple(top for top, *_ in windows(height, 1, window, stride))
        lefts = tuple(left for _, left, *_ in windows(1, width, window, stride))
        return cls(height, width, tops, lefts, (min(window, height), min(window, width)))

    def strips(self, rows: int, done: int = 0) -> Iterator[Strip]:
        """Strips with ``rows`` new rows of windows each, below the rows of pixels that are done."""
        while done < self.height:
            stop = min(bisect_left(self.tops, done) + rows, len(self.tops))
            bottom = self.tops[stop] if stop < len(self.tops) else self.height
            yield Strip(self.first(done), stop, done, bottom)
            done = bottom

    def first(self, row: int) -> int:
        """The first row of windows that reaches below a row of pixels."""
        return bisect_right(self.tops, row - self.window[0])

    def held(self, rows: int) -> int:
        """Rows of windows that are in memory at a time, at most."""
        carried = max(i - self.first(top) for i, top in enumerate(self.tops))
        return min(carried + rows, len(self.tops))


@dataclass(frozen=True)
class Costs:
    """Bytes that a plan adds up.

    resident  what the process has already: libraries, weights, embeddings of the words
    pixels    a row of windows as pixels, and what the reader keeps
    patches   features or scores of one window
    forward   one window on its way through the tower
    """

    resident: int
    pixels: int
    patches: int
    forward: int


@dataclass(frozen=True)
class Plan:
    """What will be done, for people (``str``) and as plain values (``to_dict``).

    height, width, windows  of the raster
    strips, rows            how many strips, and rows of windows that are new in each
    held                    rows of windows whose features are in memory at a time
    batch                   windows per forward pass
    maps                    bytes that maps of words may take while labels are made
    resident, features, pixels, decoding, forward, budget     bytes
    """

    height: int
    width: int
    windows: int
    strips: int
    rows: int
    held: int
    batch: int
    maps: int
    resident: int
    features: int
    pixels: int
    decoding: int
    forward: int
    budget: int

    @property
    def total(self) -> int:
        """Bytes of all parts together."""
        return self.resident + self.features + self.pixels + self.decoding + self.forward

    def to_dict(self) -> dict[str, int]:
        return asdict(self) | {"total": self.total}

    def __str__(self) -> str:
        parts = {
            "already in memory": self.resident,
            f"features of {len_of(self.held, 'row')} of windows": self.features,
            "pixels": self.pixels,
            "making labels": self.decoding,
            f"a pass of {len_of(self.batch, 'window')}": self.forward,
        }
        lines = [
            f"{self.width} x {self.height} pixels, {self.windows} windows in {len_of(self.strips, 'strip')}",
            *(f"  {as_text(size):>9}  {what}" for what, size in parts.items()),
            f"  {as_text(self.total):>9}  of {as_text(self.budget)}",
        ]
        return "\n".join(lines)


def len_of(count: int, what: str) -> str:
    """``"1 row"``, ``"2 rows"``."""
    return f"{count} {what}{'s' * (count != 1)}"


def decoding(maps: int) -> int:
    """Bytes that making labels takes where maps of words may take ``maps``."""
    return 2 * maps


def make_plan(grid: Grid, costs: Costs, budget: int, batch: int, maps: int) -> Plan:
    """The quickest plan within a budget: batches of windows and maps as large as asked for, or a half, a quarter, …;
    and as many rows of windows in a strip as fill a batch, because more of them would bring nothing.

    Raises:
        ValueError: no plan fits; says the least budget that would do.
    """
    share = 1
    while True:
        few, some = max(1, batch // share), min(maps, max(LEAST_MAPS, maps // share))
        rows = min(len(grid.tops), -(-few // len(grid.lefts)))
        held = grid.held(rows)
        plan = Plan(
            height=grid.height,
            width=grid.width,
            windows=len(grid.tops) * len(grid.lefts),
            strips=sum(1 for _ in grid.strips(rows)),
            rows=rows,
            held=held,
            batch=few,
            maps=some,
            resident=costs.resident,
            features=held * len(grid.lefts) * costs.patches,
            pixels=costs.pixels,
            decoding=decoding(some),
            forward=few * costs.forward,
            budget=budget,
        )
        if plan.total <= budget:
            return plan
        if few == 1 and some <= LEAST_MAPS:
            break
        share *= 2
    least = plan.total + plan.total // 50  # what a process has in memory is not the same every time
    raise ValueError(
        f"a memory budget of {as_text(budget)} is too small for {grid.width} x {grid.height} pixels: "
        f"{as_text(least)} would do, of which {as_text(plan.resident)} are in memory already (libraries, weights, "
        f"words) and {as_text(plan.features)} are features of {len_of(held, 'row')} of windows."
    )
