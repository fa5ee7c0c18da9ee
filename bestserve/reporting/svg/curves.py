"""Lines and points between two axes."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from itertools import pairwise

from bestserve.reporting.chart import Chart, Series, figure_text
from bestserve.reporting.svg.frame import (
    LINE,
    Canvas,
    Entry,
    Scale,
    colour,
    legend,
    mark,
    shortened,
    span,
    stroke,
    width_of,
)

PLOT = 0.5
"""Height of the plot over the width of the picture."""
LIMIT = (
    '<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="currentColor" stroke-width="1.6" '
    'stroke-dasharray="5 4" fill="none"/>'
)


def draw(chart: Chart, width: int) -> Canvas:
    """Draw a chart of kind "lines" or "points"."""
    canvas = Canvas(width, 0.0)
    words = [str(v) for s in chart.series for v in s.x if isinstance(v, str)]
    names = list(dict.fromkeys(words))
    y = _y_scale(chart)
    left = 8 + max(width_of(figure_text(t)) for t in Scale(*y, 0, 1, chart.log_y).ticks(6))
    plot_height = max(PLOT * width, 170)
    top = LINE + 8
    bottom = top + plot_height
    across = Scale(*_x_span(chart, names), left, width - 12, chart.log_x)
    up = Scale(*y, bottom, top, chart.log_y)
    canvas.text(0, 12, shortened(chart.y_label, width))
    _axes(canvas, across, up, names)
    canvas.text(width - 12, bottom + 2 * LINE, shortened(chart.x_label, width - 24), "end")
    for limit in chart.limits:
        canvas.add(f"<g {colour(1)}>{_limit(limit.axis, limit.value, across, up)}</g>")
    for index, series in enumerate(chart.series):
        _series(canvas, series, index, across, up, names, joined=chart.kind == "lines")
    canvas.height = legend(canvas, _entries(chart), bottom + 2.6 * LINE)
    return canvas


def draw_steps(chart: Chart, width: int) -> Canvas:
    """Draw a chart of kind "steps": lines that keep each value until the next."""
    stepped = [
        replace(
            series,
            x=tuple(x for pair in pairwise(series.x) for x in pair),
            y=tuple(y for y in series.y[:-1] for _ in range(2)),
        )
        for series in chart.series
    ]
    return draw(replace(chart, kind="lines", series=tuple(stepped)), width)


def _x_span(chart: Chart, names: list[str]) -> tuple[float, float]:
    if names:
        return -0.5, len(names) - 0.5
    found = [float(v) for s in chart.series for v in s.x]
    found += [li.value for li in chart.limits if li.axis == "x"]
    return span(found, chart.log_x, zero=chart.kind == "lines")


def _y_scale(chart: Chart) -> tuple[float, float]:
    found = [float(v) for s in chart.series for v in (*s.y, *s.low, *s.high)]
    found += [li.value for li in chart.limits if li.axis == "y"]
    return span(found, chart.log_y, zero=True)


def _axes(canvas: Canvas, across: Scale, up: Scale, names: list[str]) -> None:
    """Draw grid and ticks; labels that have no room are left out."""
    for value in up.ticks(6):
        y = up(value)
        canvas.line(across.start, y, across.end, y)
        canvas.text(across.start - 6, y + 4, figure_text(value), "end")
    room = across.end - across.start
    if names:
        widest = max(width_of(n) for n in names) + 10
        every = max(1, -(-int(widest * len(names)) // max(int(room), 1)))
        ticks = [(float(i), n) for i, n in enumerate(names) if i % every == 0]
    else:
        values = across.ticks(max(int(room / 70), 2))
        ticks = [(v, figure_text(v)) for v in values]
    for place, text in ticks:
        x = across(place)
        canvas.line(x, up.start, x, up.start + 5, faint=False)
        canvas.text(x, up.start + LINE, text, "middle")
    canvas.line(across.start, up.start, across.end, up.start, faint=False)


def _limit(axis: str, value: float, across: Scale, up: Scale) -> str:
    if axis == "y":
        return LIMIT.format(x1=across.start, x2=across.end, y1=up(value), y2=up(value))
    return LIMIT.format(x1=across(value), x2=across(value), y1=up.start, y2=up.end)


def _series(
    canvas: Canvas,
    series: Series,
    index: int,
    across: Scale,
    up: Scale,
    names: list[str],
    joined: bool,
) -> None:
    places = [names.index(v) if isinstance(v, str) else float(v) for v in series.x]
    points = [
        (across(x), up(float(y)), number)
        for number, (x, y) in enumerate(zip(places, series.y, strict=True))
        if not (up.log and float(y) <= 0) and not (across.log and float(x) <= 0)
    ]
    if series.low and joined:
        canvas.add(_band(series, index, places, across, up))
    if (joined or series.joined) and points:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
        front = series.joined and not joined
        look = 'stroke-width="1.5" stroke-dasharray="2 4" color="#7F7F7F" class="c7"'
        own = f'stroke-width="2"{stroke(index)} {colour(index)}'
        canvas.add(f'<path d="{path}" stroke="currentColor" fill="none" {look if front else own}/>')
    if series.joined and not joined:
        return
    for x, y, number in points:
        said = series.text[number] if number < len(series.text) else series.name
        at = figure_text(places[number]), figure_text(float(series.y[number]))
        value = f"{said}: {', '.join(at)}"
        canvas.add(
            f'<g transform="translate({x:.1f} {y:.1f})" opacity=".9">{mark(index)}'
            f"<title>{escape(value)}</title></g>"
        )


def _band(series: Series, index: int, places: list[float], across: Scale, up: Scale) -> str:
    """Return the area between low and high."""
    high = [f"{across(x):.1f} {up(v):.1f}" for x, v in zip(places, series.high, strict=True)]
    low = [f"{across(x):.1f} {up(v):.1f}" for x, v in zip(places, series.low, strict=True)]
    path = "M" + "L".join([*high, *reversed(low)]) + "Z"
    return f'<path d="{path}" fill="currentColor" fill-opacity=".16" {colour(index)}/>'


def _entries(chart: Chart) -> list[Entry]:
    found = []
    several = len(chart.series) > 1
    for index, series in enumerate(chart.series):
        line = '<path d="M-10 0H10" stroke="currentColor" stroke-width="2" fill="none"{}/>'
        if chart.kind == "points" and series.joined:
            dotted = line.format(' stroke-dasharray="2 4"')
            found.append(Entry(f'<g class="c7" color="#7F7F7F">{dotted}</g>', series.name))
        elif several:
            own = f"<g {colour(index)}>{line.format(stroke(index))}</g>"
            found.append(Entry((own if chart.kind == "lines" else "") + mark(index), series.name))
    for limit in chart.limits:
        line = LIMIT.format(x1=-10, x2=10, y1=0, y2=0)
        found.append(Entry(f"<g {colour(1)}>{line}</g>", limit.name))
    return found
