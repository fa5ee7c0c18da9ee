"""Bars, falls and parts: what has a name on one axis and a value on the other."""

from __future__ import annotations

from html import escape

from bestserve.reporting.chart import Chart, figure_text
from bestserve.reporting.svg.frame import (
    LINE,
    Canvas,
    Entry,
    Scale,
    colour,
    legend,
    shortened,
    swatch,
    width_of,
)

ROW = 26
BAR = 14
NAMES = 0.42
"""Share of the width up to which names stand beside their bars; else they stand above."""


def draw(chart: Chart, width: int) -> Canvas:
    """Draw a chart of kind "bars" or "waterfall"."""
    names, spans = _rows(chart)
    values = [v for ends in spans for v in ends] + [li.value for li in chart.limits]
    series = chart.series[0]
    values += [*series.low, *series.high, 0.0]
    texts = [_value(chart, a, b) for a, b in spans]
    aside = max(width_of(n) for n in names) <= NAMES * width
    left = max(width_of(n) for n in names) + 10 if aside else 4.0
    room = max(width_of(t) for t in texts) + 8
    negative = min(values) < 0
    scale = Scale(
        min(values), max(values) or 1.0, left + (room if negative else 0), width - room - 4
    )
    row = ROW if aside else ROW + LINE
    canvas = Canvas(width, 0.0)
    base = len(names) * row + 6
    for value in scale.ticks(max(int((scale.end - scale.start) / 75), 2)):
        x = scale(value)
        canvas.line(x, 0, x, base)
        canvas.text(x, base + LINE - 3, figure_text(value), "middle")
    for index, (name, ends, text) in enumerate(zip(names, spans, texts, strict=True)):
        y = index * row + (0 if aside else LINE)
        if aside:
            canvas.text(left - 8, y + BAR + 3, name, "end")
        else:
            canvas.text(4, y, shortened(name, width - 8))
        said = series.text[index] if index < len(series.text) else ""
        _bar(canvas, scale, ends, y + 5, _look(chart, index, len(names), ends), f"{name} {said}")
        _error(canvas, chart, index, scale, y + 5 + BAR / 2)
        _number(canvas, chart, index, scale, ends, y + BAR + 3, text)
    canvas.line(scale(0), 0, scale(0), base, faint=False)
    for limit in chart.limits:
        x = scale(limit.value)
        canvas.add(
            f'<path {colour(1)} d="M{x:.1f} 0V{base}" stroke="currentColor" stroke-width="1.6" '
            'stroke-dasharray="5 4" fill="none"/>'
        )
    canvas.text(width - 4, base + 2 * LINE - 2, shortened(chart.x_label, width - 8), "end")
    dash = '<path d="M-10 0H10" stroke="currentColor" stroke-width="1.6" stroke-dasharray="5 4"/>'
    entries = [Entry(f"<g {colour(1)}>{dash}</g>", li.name) for li in chart.limits]
    canvas.height = legend(canvas, entries, base + 2.5 * LINE)
    return canvas


def _rows(chart: Chart) -> tuple[list[str], list[tuple[float, float]]]:
    """Return names and the ends of each bar."""
    (series,) = chart.series
    values = [float(v) for v in series.x]
    names = [str(n) for n in series.y]
    if chart.kind == "bars":
        return names, [(0.0, v) for v in values]
    spans, total = [], 0.0
    for value in values:
        spans.append((total, total + value))
        total += value
    return [*names, "total"], [*spans, (0.0, total)]


def _value(chart: Chart, start: float, end: float) -> str:
    if chart.kind == "waterfall":
        return f"{end - start:.0f}"
    signed = any(float(v) < 0 for v in chart.series[0].x)
    return f"{end - start:+.2f}" if signed else figure_text(end - start)


def _look(chart: Chart, index: int, count: int, ends: tuple[float, float]) -> str:
    if chart.kind == "waterfall" and index == count - 1:
        return colour(7)
    negative = 2 if chart.kind == "waterfall" else 1
    return colour(0 if ends[1] >= ends[0] else negative)


def _bar(
    canvas: Canvas, scale: Scale, ends: tuple[float, float], y: float, look: str, said: str
) -> None:
    low, high = sorted(scale(v) for v in ends)
    canvas.add(
        f'<rect {look} x="{low:.1f}" y="{y:.1f}" width="{max(high - low, 1):.1f}" height="{BAR}" '
        f'rx="2" fill="currentColor"><title>{escape(said)}</title></rect>'
    )


def _error(canvas: Canvas, chart: Chart, index: int, scale: Scale, y: float) -> None:
    """Draw the interval around a value, if it has one."""
    series = chart.series[0]
    if index < len(series.low):
        low, high = scale(series.low[index]), scale(series.high[index])
        path = f"M{low:.1f} {y - 4:.1f}v8M{low:.1f} {y:.1f}H{high:.1f}M{high:.1f} {y - 4:.1f}v8"
        canvas.add(f'<path d="{path}" stroke="currentColor" stroke-width="1.5" fill="none"/>')


def _number(
    canvas: Canvas,
    chart: Chart,
    index: int,
    scale: Scale,
    ends: tuple[float, float],
    y: float,
    text: str,
) -> None:
    """Write the value beside the end of its bar, beyond the interval."""
    high = chart.series[0].high
    at = max(ends[1], high[index]) if index < len(high) else ends[1]
    if at < 0 and chart.kind == "bars":
        canvas.text(scale(at) - 5, y, text, "end")
    else:
        canvas.text(scale(max(at, ends[0])) + 5, y, text)


def draw_parts(chart: Chart, width: int) -> Canvas:
    """Draw a chart of kind "parts": one bar, cut into what it consists of."""
    canvas = Canvas(width, 0.0)
    (series,) = chart.series
    values = [float(v) for v in series.x]
    total = sum(values) or 1.0
    scale = Scale(0, total, 2, width - 2)
    start, entries = 0.0, []
    for index, (value, name) in enumerate(zip(values, series.y, strict=True)):
        text = f"{name}: {figure_text(value)}"
        x, end = scale(start), scale(start + value)
        canvas.add(
            f'<rect {colour(index)} x="{x:.1f}" y="2" width="{max(end - x - 1.5, 0.5):.1f}" '
            f'height="34" rx="3" fill="currentColor"><title>{escape(text)}</title></rect>'
        )
        start += value
        entries.append(Entry(swatch(index), f"{text} ({value / total:.0%})"))
    for value in scale.ticks(max(int(width / 90), 2)):
        x = min(max(scale(value), 8.0), width - 8.0)
        canvas.text(x, 36 + LINE, figure_text(value), "middle")
    canvas.text(width - 2, 36 + 2 * LINE, shortened(chart.x_label, width - 4), "end")
    canvas.height = legend(canvas, entries, 36 + 2.5 * LINE)
    return canvas
