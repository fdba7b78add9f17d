"""The winning prompt of every pixel, without computing the maps of the others: branch and bound over cells of the
image.

In a cell between four breakpoints the map of a prompt is the bilinear interpolation of its breakpoint values
(``breakpoints.py``): at every pixel a convex combination, with the same weights for all prompts, of its values u at the
four corners.  So for prompts c, c*

    u_c(i) ≤ u_c*(i) at the four corners i   ⟹   m_c ≤ m_c* at every pixel of the cell                     (domination)

1. A prompt that wins all four corners wins the cell.  Otherwise c* is the prompt, among the top few of each corner,
   whose largest deficit to the corner winners is smallest.  A prompt c can win a pixel only if u_c(i) > u_c*(i) at some
   corner. These candidates are taken from the top few or, where these do not reach down to u_c*, from a comparison of
   all.
2. The remaining prompts of a cell are compared again at its four outermost pixels; a cell that still has several is
   split along its sides, and so on until cells are small or few prompts remain.
3. The maps of the remaining prompts are computed and compared pixel by pixel.

No step drops a prompt that could be strictly best, so the result is the argmax of the maps themselves, except for
rounding where two prompts are tied.  Synonyms of a class compete like any other prompts: the class of the best prompt
is the best class.
"""

import torch
from torch import Tensor

from .breakpoints import BreakpointMaps

FIRST = 8  # prompts examined per breakpoint before all are compared
SMALL = 24  # pixels below which a cell is not split any further
MANY = 2**19  # (cell, prompt) pairs collected before they are drawn: 24 bytes each


def winning_prompts(maps: BreakpointMaps, memory: int) -> Tensor:
    """Index of the best prompt of every pixel, (H, W) int64.

    Args:
        maps: breakpoint values of all prompts.
        memory: bytes that the breakpoint values of all prompts may take at a time.
    """
    device = maps.patches.device
    words = torch.zeros(maps.rows.size, maps.columns.size, dtype=torch.long, device=device)
    scratch = torch.empty(max(4 * maps.words, memory // 4), device=device) if maps.text is not None else None
    left = []
    for rows, columns in maps.tiles(memory):
        corners, cells = _cells(maps, rows, columns)
        if not len(cells):
            continue
        wide = (min(rows[1] + 1, maps.rows.breakpoints), min(columns[1] + 1, maps.columns.breakpoints))
        values = maps.values((rows[0], wide[0]), (columns[0], wide[1]), scratch)
        sole, open_cells, cell_of, word, corner_values = _first_bound(values, corners)
        _fill(words, cells, sole)
        left += _compare(maps, cells[open_cells], cell_of, word, corner_values)
        if sum(len(word) for _, _, word, _ in left) > MANY:
            _draw(words, maps, left)
            left = []
    _draw(words, maps, left)
    return words


def _cells(maps: BreakpointMaps, rows, columns) -> tuple[Tensor, Tensor]:
    """The cells of a tile that contain pixels: the indices of their corners (n, 4) among the tile's breakpoints, and
    their inclusive pixel bounds (n, 4): top, bottom, left, right."""
    width = min(columns[1] + 1, maps.columns.breakpoints) - columns[0]
    y, x = (
        torch.arange(*span, device=axis.low.device)[axis.stop[slice(*span)] > axis.start[slice(*span)]]
        for axis, span in ((maps.rows, rows), (maps.columns, columns))
    )
    ends = [maps.rows.start[y], maps.rows.stop[y] - 1, maps.columns.start[x], maps.columns.stop[x] - 1]
    grid = [e[:, None].expand(-1, len(x)) for e in ends[:2]] + [e.expand(len(y), -1) for e in ends[2:]]
    y, x = y[:, None], x[None]
    below, right = maps.rows.next[y], maps.columns.next[x]
    corners = [(b - rows[0]) * width + a - columns[0] for b in (y, below) for a in (x, right)]
    return torch.stack(corners, -1).flatten(0, 1), torch.stack(grid, -1).flatten(0, 1)


def _first_bound(values: Tensor, corners: Tensor):
    """Step 1.  Returns the sole prompt of each cell (−1 for none), the open cells, and the remaining (cell, prompt)
    pairs in ascending order: the open cell (P,), the prompt (P,), and its values (P, 4) at the corners."""
    breakpoints, total = values.shape
    best, ids = values.topk(min(FIRST, total), 1)
    winners = ids.where(best == best[:, :1], total).amin(1)[corners]  # the first of tied prompts
    decided = (winners == winners[:, :1]).all(1)
    sole = torch.where(decided, winners[:, 0], -1)
    open_cells = (~decided).nonzero()[:, 0]
    corners = corners[open_cells]
    known = ids[corners].flatten(1)
    at = values.flatten()[corners[:, None] * total + known[:, :, None]]  # (n, prompt, corner)
    behind = (at - best[:, 0][corners][:, None]).amin(2)
    least, chosen = behind.max(1, keepdim=True)
    level = at.gather(1, chosen[:, :, None].expand(-1, -1, 4))[:, 0]
    chosen = known.where(behind == least, total).amin(1)
    lowest = values.new_full((breakpoints,), torch.inf).scatter_reduce_(0, corners.flatten(), level.flatten(), "amin")
    deep = (best[:, -1] > lowest) & (total > FIRST)
    row, rank = ((best > lowest[:, None]) & ~deep[:, None]).nonzero(as_tuple=True)
    word = ids[row, rank]
    deep = deep.nonzero()[:, 0]
    more, others = (values[deep] > lowest[deep, None]).nonzero(as_tuple=True)
    row, word = torch.cat([row, deep[more]]), torch.cat([word, others])
    pair_values = values[row, word]
    pairs = [torch.arange(len(open_cells), device=values.device) * total + chosen]
    for corner in range(4):
        cell = corners.new_full((breakpoints,), -1)
        cell[corners[:, corner]] = torch.arange(len(open_cells), device=values.device)
        cell = cell[row]
        above = (cell >= 0) & (pair_values > level[cell, corner])
        pairs.append(cell[above] * total + word[above])
    pairs = torch.cat(pairs).unique()
    cell_of, word = pairs // total, pairs % total
    return sole, open_cells, cell_of, word, values.flatten()[corners[cell_of] * total + word[:, None]]


def _fill(words: Tensor, cells: Tensor, sole: Tensor):
    """Write the prompts of decided cells; the cells of a tile define its rows and columns."""
    top, bottom, left, right = int(cells[0, 0]), int(cells[-1, 1]), int(cells[0, 2]), int(cells[-1, 3])
    across = int((cells[:, 0] == top).sum())
    sole = sole.view(-1, across)
    heights, widths = cells[::across, 1] - cells[::across, 0] + 1, cells[:across, 3] - cells[:across, 2] + 1
    words[top : bottom + 1, left : right + 1] = sole.repeat_interleave(heights, 0).repeat_interleave(widths, 1)


def _compare(maps: BreakpointMaps, cells: Tensor, cell_of: Tensor, word: Tensor, corner_values: Tensor) -> list:
    """Step 2.  ``cell_of`` is ascending.  Returns the remaining pairs in chunks: cells (n, 4), prompts per cell (n,),
    and the prompts (P,), cell after cell, with their values (P, 4)."""
    left = []
    while len(cell_of):
        down, across = maps.rows.part[cells[:, :2]], maps.columns.part[cells[:, 2:]]
        corner = _interpolate(corner_values, down[cell_of], across[cell_of])
        top = corner.new_full((len(cells), 4), -torch.inf)
        top.scatter_reduce_(0, cell_of[:, None].expand(-1, 4), corner, "amax")
        lead = (corner - top[cell_of]).amin(1)
        most = lead.new_full((len(cells),), -torch.inf).scatter_reduce_(0, cell_of, lead, "amax")
        place = torch.arange(len(cell_of), device=cell_of.device).masked_fill_(lead < most[cell_of], len(cell_of))
        chosen = place.new_full((len(cells),), len(cell_of)).scatter_reduce_(0, cell_of, place, "amin")
        keep = (corner > corner[chosen][cell_of]).any(1)
        keep[chosen] = True
        cell_of, word, corner_values = cell_of[keep], word[keep], corner_values[keep]
        count = torch.bincount(cell_of, minlength=len(cells))
        height, width = cells[:, 1] - cells[:, 0] + 1, cells[:, 3] - cells[:, 2] + 1
        split = (count > 2) & (height * width > SMALL)
        ready = ~split[cell_of]
        left.append((cells[~split], count[~split], word[ready], corner_values[ready]))
        cells, parent = _halves(cells, split, height, width)
        first, number = count.cumsum(0) - count, count[parent]
        cell_of = torch.arange(len(cells), device=cell_of.device).repeat_interleave(number)
        at = torch.arange(len(cell_of), device=cell_of.device) + (first[parent] - number.cumsum(0) + number)[cell_of]
        word, corner_values = word[at], corner_values[at]
    return left


def _interpolate(values: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Values (P, 4) at the corners of cells → (P, 4) at the crossings of two rows and two columns, (P, 2) each."""
    side = torch.lerp(values[:, None, :2], values[:, None, 2:], down[:, :, None])
    return torch.lerp(side[:, :, :1], side[:, :, 1:], across[:, None]).flatten(1)


def _halves(cells: Tensor, split: Tensor, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Halve cells along each side that is longer than a third of the other.  Returns the halves and their parents."""
    parent = split.nonzero()[:, 0]
    cells = cells[parent]
    for first, sides in ((0, 3 * height > width), (2, 3 * width > height)):
        cut = sides[parent] & (cells[:, first + 1] > cells[:, first])
        middle = (cells[:, first] + cells[:, first + 1]) // 2
        upper, lower = cells.clone(), cells[cut]
        upper[:, first + 1] = torch.where(cut, middle, upper[:, first + 1])
        lower[:, first] = middle[cut] + 1
        cells, parent = torch.cat([upper, lower]), torch.cat([parent, parent[cut]])
    return cells, parent


def _draw(words: Tensor, maps: BreakpointMaps, left: list):
    """Step 3, in groups of cells of similar size (by powers of 4) and number of prompts (by powers of 2), padded to the
    largest of the group."""
    if not left:
        return
    cells, count, word, values = (torch.cat(column) for column in zip(*left, strict=True))
    first = count.cumsum(0) - count
    sizes = [count, cells[:, 1] - cells[:, 0] + 1, cells[:, 3] - cells[:, 2] + 1]
    powers = [size.float().log2().ceil().long() for size in sizes]
    keys = powers[0] + ((powers[1] + 1) // 2 << 6) + ((powers[2] + 1) // 2 << 12)
    for key in keys.unique().tolist():
        group = (keys == key).nonzero()[:, 0]
        number, height, width = (int(size[group].max()) for size in sizes)
        rows, columns = (
            (cells[group, e, None] + torch.arange(n, device=cells.device)).minimum(cells[group, e + 1, None])
            for e, n in ((0, height), (2, width))
        )
        down, across = maps.rows.part[rows][:, :, None], maps.columns.part[columns][:, None]
        winner, best = word[first[group]][:, None, None].expand(-1, height, width), None
        for rank in range(number if number > 1 else 0):
            at = first[group] + count[group].clamp(max=rank + 1) - 1
            corner = values[at][:, None]
            side = torch.lerp(corner[:, :, :2], corner[:, :, 2:], down)
            scores = torch.lerp(side[:, :, :1], side[:, :, 1:], across)
            if best is None:
                best = scores
            else:
                winner = torch.where(scores > best, word[at][:, None, None], winner)
                best = torch.maximum(best, scores)
        words[rows[:, :, None], columns[:, None]] = winner
