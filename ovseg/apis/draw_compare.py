"""A comparison of methods to look at: one sheet of overlays, and one page with the numbers."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np
from PIL import Image, ImageDraw

from ovseg.registry import DENSE
from ovseg.results.draw import INK, MUTED, PAPER, LegendEntry, draw_overlay, legend_entries
from ovseg.results.fonts import Text

from .comparison import ComparisonValues
from .explain import RAMP, STOPS

SHEET_SIDE, PAGE_SIDE = 384, 480
"""Longest side of one picture on the sheet and on the page, in pixels."""

TITLE, SMALL, GAP, WIDEST = 21, 16, 18, 2048
ALPHA = 0.7
"""Stronger than a single overlay's, so that one legend serves all: the picture itself is beside them."""


def agreement_image(comparison: ComparisonValues) -> np.ndarray:
    """(H, W, 3) uint8: from dark, where every method says something else, to bright, where all say the same."""
    least = 1 / len(comparison.entries)
    return ramp((comparison.agreement - least) / max(1 - least, 1e-6) if least < 1 else comparison.agreement)


def ramp(values: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1] as uint8 colors: (…) → (…, 3)."""
    color = np.stack([np.interp(values, STOPS, channel) for channel in np.transpose(RAMP)], -1)
    return (color + 0.5).clip(0, 255).astype(np.uint8)


def panels(comparison: ComparisonValues, side: int) -> dict[str, Image.Image]:
    """``picture``, one overlay per method, ``majority`` and ``agreement``, their longest side ``side`` pixels."""
    height, width = comparison.image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    step = max(1, int(1 / (4 * scale)))  # thin out first: Pillow would copy the whole gigapixel
    photo = Image.fromarray(np.ascontiguousarray(comparison.image[::step, ::step]))
    photo = photo.resize(size, Image.Resampling.BICUBIC)
    rows, columns = (((np.arange(n) + 0.5) * of / n).astype(int) for n, of in ((size[1], height), (size[0], width)))
    names, colors = comparison.vocabulary.names, comparison.vocabulary.colors

    def overlay(labels: np.ndarray) -> Image.Image:
        untinted = _untinted(comparison)
        return draw_overlay(photo, labels[rows][:, columns], names, colors, ALPHA, legend=False, untinted=untinted)

    overlays = {"picture": photo} | {entry.method: overlay(entry.result.labels) for entry in comparison.entries}
    shades = Image.fromarray(agreement_image(comparison)[rows][:, columns])
    return overlays | {"majority": overlay(comparison.majority), "agreement": shades}


def captions(comparison: ComparisonValues) -> dict[str, str]:
    """One line for every panel."""
    height, width = comparison.image.shape[:2]
    lines = {"picture": f"{width} × {height} pixels"}
    for entry, share in zip(comparison.entries, comparison.with_majority, strict=True):
        lines[entry.method] = f"{seconds(entry.own)} · with the majority {share:.0%}"
    lines["majority"] = "label that most methods give"
    lines["agreement"] = (
        f"mean {comparison.agreement.mean():.0%}, all the same {(comparison.agreement == 1).mean():.0%}"
    )
    return lines


def seconds(value: float) -> str:
    return f"{1000 * value:.0f} ms" if value < 0.9995 else f"{value:.1f} s" if value < 99.95 else f"{value:.0f} s"


def sheet(comparison: ComparisonValues) -> Image.Image:
    """All panels under their titles, then one legend: RGB, its size given by the number of methods."""
    pictures, lines = panels(comparison, SHEET_SIDE), captions(comparison)
    cell = max(pictures["picture"].width, 300), pictures["picture"].height
    head = round(TITLE * 1.5 + SMALL * 1.6)
    count = len(pictures)
    # about as wide as a screen, at most so wide that titles stay readable when the sheet is shown whole
    fitting = max(1, (WIDEST - GAP) // (cell[0] + GAP))
    best = round((count * 1.5 * (cell[1] + head + GAP) / (cell[0] + GAP)) ** 0.5)
    columns = min(max(1, best), fitting, count)
    columns = -(-count // -(-count // columns))  # no more columns than these rows need
    rows = -(-count // columns)
    width = GAP + columns * (cell[0] + GAP)
    legend = _legend(comparison, width)
    top = GAP + rows * (head + cell[1] + GAP)
    image = Image.new("RGB", (width, top + legend.height), PAPER)
    pen = ImageDraw.Draw(image)
    for n, (name, picture) in enumerate(pictures.items()):
        row, column = divmod(n, columns)
        x, y = GAP + column * (cell[0] + GAP), GAP + row * (head + cell[1] + GAP)
        Text(name, TITLE, cell[0]).draw(pen, x, y + TITLE * 0.6, INK)
        Text(lines[name], SMALL, cell[0]).draw(pen, x, y + TITLE * 1.4 + SMALL * 0.6, MUTED)
        image.paste(picture, (x, y + head))
    image.paste(legend, (0, top))
    return image


def _untinted(comparison: ComparisonValues) -> tuple[int, ...]:
    return () if comparison.vocabulary.background.kind == "none" else (0,)


def _entries(comparison: ComparisonValues) -> list[LegendEntry]:
    """Classes that some method gave, with their mean share over the methods."""
    labels = np.concatenate([entry.result.labels for entry in comparison.entries])
    vocabulary = comparison.vocabulary
    return legend_entries(labels, vocabulary.names, vocabulary.colors, 40, _untinted(comparison))


def _legend(comparison: ComparisonValues, width: int) -> Image.Image:
    """Classes side by side, the scale of the agreement map, and what the sheet shows, wrapped to a width."""
    canvas = Image.new("RGB", (width, 4096), PAPER)
    pen = ImageDraw.Draw(canvas)
    x, y, pitch, square = GAP, SMALL, round(1.9 * SMALL), SMALL
    for entry in _entries(comparison):
        text = Text(entry.name, SMALL, width - 2 * GAP - 2 * square)
        step = round(square * 1.5) + text.width + 2 * GAP
        if x > GAP and x + step - 2 * GAP > width - GAP:
            x, y = GAP, y + pitch
        box = (x, y - square // 2, x + square, y + square // 2)
        pen.rounded_rectangle(box, 3, fill=entry.color, outline=None if entry.color else MUTED, width=2)
        text.draw(pen, x + 1.5 * square, y, INK)
        x += step
    y += pitch
    count = len(comparison.entries)
    low, high = Text("agreement: each differs", SMALL), Text(f"all {count} agree" if count > 1 else "one method", SMALL)
    bar = min(220, max(40, width - 2 * GAP - low.width - high.width - 2 * square))
    low.draw(pen, GAP, y, INK)
    shades = Image.fromarray(ramp(np.linspace(0, 1, bar))[None].repeat(square, 0))
    canvas.paste(shades, (GAP + low.width + square, y - square // 2))
    high.draw(pen, GAP + low.width + bar + 2 * square, y, INK)
    for line in _notes(comparison):
        for part in _wrap(line, width - 2 * GAP):
            y += round(1.5 * SMALL)
            Text(part, SMALL, width - 2 * GAP).draw(pen, GAP, y, MUTED)
    return canvas.crop((0, 0, width, min(y + 2 * SMALL, canvas.height)))


def _wrap(line: str, width: int) -> list[str]:
    lines = [""]
    for word in line.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and Text(longer, SMALL).width > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _notes(comparison: ComparisonValues) -> list[str]:
    lines = [
        f"{comparison.weights} on {comparison.device}. {settings(comparison)} Times are each method's own, beyond the "
        f"blocks that methods share: {seconds(comparison.shared)}, run once."
    ]
    if comparison.failed:
        lines.append(f"Not shown: {', '.join(comparison.failed)}; the page and the JSON say why.")
    return lines


def settings(comparison: ComparisonValues) -> str:
    """Which pixels the methods saw, in a sentence."""
    common = comparison.protocol
    if common is None:
        return "Each method keeps its own published sizes and windows."
    size = (
        f"{common['size'][1]} × {common['size'][0]} px" if common["size"] else f"short side {common['short_side']} px"
    )
    size = "native size" if not common["size"] and common["short_side"] is None else size
    window = (
        f"window {common['window']} px, stride {common['stride']} px" if common["window"] else "whole picture at once"
    )
    return f"All methods see the same pixels: {size}, {window}."


def page(comparison: ComparisonValues, title: str) -> str:
    """A page of HTML that holds its pictures itself."""
    pictures, lines = panels(comparison, PAGE_SIDE), captions(comparison)
    figures = "\n".join(
        f"<figure><figcaption><b>{_text(name)}</b><span>{_text(lines[name])}</span></figcaption>"
        f'<img alt="{_text(name)}" width="{picture.width}" height="{picture.height}" '
        f'src="data:image/png;base64,{_png(picture)}"></figure>'
        for name, picture in pictures.items()
    )
    legend = "\n".join(
        f'<li><i style="background:{_css(entry.color)}"></i>{_text(entry.name)} <span>{entry.fraction:.1%}</span></li>'
        for entry in _entries(comparison)
    )
    gradient = ", ".join(f"{_css(color)} {stop:.0%}" for stop, color in zip(STOPS, RAMP, strict=True))
    failed = "".join(f"<li><b>{_text(name)}</b>: {_text(why)}</li>" for name, why in comparison.failed.items())
    failed = f"<h2>Methods that could not take part</h2>\n<ul>{failed}</ul>" if failed else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="ovseg">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}: {len(comparison.entries)} methods compared</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{_text(title)}</h1>
<p>{_text(str(comparison.weights))} on {_text(comparison.device)}. {_text(settings(comparison))}</p>
<ul class="legend">
{legend}
</ul>
<p class="scale">agreement: each differs <i style="background:linear-gradient(to right, {gradient})"></i> all agree</p>
<div class="grid">
{figures}
</div>
<h2>Time, memory, agreement</h2>
<div class="wide">{_costs(comparison)}</div>
<p>Own time: from the pixels to the labels, beyond what other methods read as well; words are encoded before. Alone:
with the shared blocks. Memory: {_text(comparison.memory_is)}.</p>
<h2>Pixels on which two methods agree</h2>
<div class="wide">{_pairs(comparison)}</div>
{failed}
</body>
</html>
"""


STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2328; --muted: #5b636d; --line: #d8dee4;
  --tint: 9, 105, 218 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e6e9ec; --muted: #9aa4af; --line: #343b43; --tint: 88, 166, 255 }
}
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 1500px; padding: 0 1.5rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2.2rem }
p, span { color: var(--muted) } p { max-width: 80ch }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); gap: 1.2rem }
figure { margin: 0 } figcaption { display: flex; flex-wrap: wrap; gap: 0 .7rem; margin-bottom: .3rem }
img { display: block; width: 100%; height: auto; border-radius: 4px }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.4rem }
.legend i, .scale i { display: inline-block; width: .95em; height: .95em; border-radius: 3px; margin: 0 .45em -.1em 0;
  border: 1px solid var(--line) }
.scale i { width: 12em; margin: 0 .5em -.1em .5em }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child, .paper { text-align: left } th { font-weight: 600 }
.sum td { font-weight: 600 }
"""


def _costs(comparison: ComparisonValues) -> str:
    rows = []
    papers = {name.lower(): DENSE.get(name).paper for name in DENSE.module_dict}
    for entry, share in zip(comparison.entries, comparison.with_majority, strict=True):
        memory = "unknown" if entry.memory is None else f"{entry.memory / 2**20:.1f} MiB"
        paper = papers.get(entry.method.split(" ")[0], "")
        rows.append(
            f'<tr><td>{_text(entry.method)}</td><td class="paper">{_text(paper)}</td>'
            f"<td>{seconds(entry.own)}</td><td>{seconds(entry.alone)}</td><td>{memory}</td><td>{share:.1%}</td></tr>"
        )
    together = comparison.shared + sum(entry.own for entry in comparison.entries)
    alone = sum(entry.alone for entry in comparison.entries)
    head = "".join(
        f'<th scope="col"{extra}>{name}</th>'
        for name, extra in (
            ("method", ""),
            ("paper", ' class="paper"'),
            ("own time", ""),
            ("alone", ""),
            ("memory", ""),
            ("with the majority", ""),
        )
    )
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>\n"
        + "\n".join(rows)
        + f"\n<tr><td>shared blocks</td><td></td><td>{seconds(comparison.shared)}</td><td></td><td></td><td></td></tr>"
        f'\n<tr class="sum"><td>together</td><td></td><td>{seconds(together)}</td><td>{seconds(alone)}</td><td></td>'
        f"<td></td></tr></tbody></table>"
    )


def _pairs(comparison: ComparisonValues) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in comparison.methods)
    rows = []
    for name, row in zip(comparison.methods, comparison.pairwise, strict=True):
        cells = "".join(f'<td style="background:rgba(var(--tint), {0.45 * v:.2f})">{v:.0%}</td>' for v in row)
        rows.append(f'<tr><th scope="row">{_text(name)}</th>{cells}</tr>')
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>\n" + "\n".join(rows) + "</tbody></table>"


def _png(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _css(color) -> str:
    return "transparent" if color is None else "#{:02x}{:02x}{:02x}".format(*color)


def _text(value) -> str:
    """For HTML, whatever a file name or word holds; half a surrogate pair becomes its code."""
    return escape(str(value).encode("utf-8", "backslashreplace").decode("utf-8"))
