"""A map: cells of two figures, each with its winner."""

from __future__ import annotations

from html import escape

from bestserve.reporting.chart import PALETTE, Chart, ink, letter
from bestserve.reporting.svg.frame import (
    LINE,
    SIZE,
    Canvas,
    Entry,
    colour,
    legend,
    shortened,
    swatch,
    width_of,
)

CELL = 40


def draw(chart: Chart, width: int) -> Canvas:
    """Draw a chart of kind "map"."""
    canvas = Canvas(width, 0.0)
    (series,) = chart.series
    columns, lines = list(dict.fromkeys(series.x)), list(dict.fromkeys(series.y))
    left = 8 + min(max(width_of(str(n)) for n in lines), 0.25 * width)
    side = (width - left - 2) / len(columns)
    top = LINE + 4
    canvas.text(0, 12, shortened(chart.y_label, width))
    for x, y, told in zip(series.x, series.y, series.text, strict=True):
        winner, _, rest = told.partition(": ")
        index = chart.categories.index(winner)
        px = left + columns.index(x) * side
        py = top + (len(lines) - 1 - lines.index(y)) * CELL
        short, full = letter(index), f"{letter(index)} {rest.split(' req/s')[0]}"
        label = full if width_of(full) <= side - 4 else short
        i = index % len(PALETTE)
        canvas.add(
            f'<g {colour(i)}><rect x="{px:.1f}" y="{py:.1f}" width="{side - 2:.1f}" '
            f'height="{CELL - 2}" rx="3" fill="currentColor"/>'
            f'<text class="on{i}" x="{px + side / 2 - 1:.1f}" y="{py + CELL / 2 + 4:.1f}" '
            f'text-anchor="middle" fill="{ink(PALETTE[i])}">{escape(label)}</text>'
            f"<title>{escape(f'{x}, {y}: {told}')}</title></g>"
        )
    for number, name in enumerate(lines):
        y_ = top + (len(lines) - 1 - number) * CELL + CELL / 2 + 4
        canvas.text(left - 6, y_, shortened(str(name), left - 10), "end")
    widest = max(width_of(str(n)) for n in columns) + 8
    every = max(1, -(-int(widest) // max(int(side), 1)))
    base = top + len(lines) * CELL
    for number, name in enumerate(columns):
        if number % every == 0:
            canvas.text(left + (number + 0.5) * side, base + SIZE, str(name), "middle")
    canvas.text(width - 4, base + 2 * LINE, shortened(chart.x_label, width - 8), "end")
    entries = [Entry(swatch(i), f"{letter(i)}: {name}") for i, name in enumerate(chart.categories)]
    canvas.height = legend(canvas, entries, base + 2.6 * LINE)
    return canvas
