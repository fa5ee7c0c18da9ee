"""Charts as SVG, made here: text that a page shows, prints and reads aloud without a library."""

from __future__ import annotations

from html import escape

from bestserve.reporting.chart import Chart
from bestserve.reporting.fleet import Diagram
from bestserve.reporting.svg import bars, curves, flow, grid
from bestserve.reporting.svg.frame import Canvas

WIDE, NARROW = 480, 340
"""Widths of a picture on a screen and on a phone [px]."""

_DRAW = {
    "lines": curves.draw,
    "steps": curves.draw_steps,
    "points": curves.draw,
    "bars": bars.draw,
    "waterfall": bars.draw,
    "parts": bars.draw_parts,
    "map": grid.draw,
}


def svg(chart: Chart, width: int = WIDE) -> str:
    """Return a chart as an SVG element of this width [px]."""
    canvas = _DRAW[chart.kind](chart, width)
    return _element(f"{chart.key}-{width}", f"{chart.title}. {chart.summary}", canvas)


def flow_svg(diagram: Diagram, width: int = WIDE) -> str:
    """Return a fleet's flows as an SVG element of this width [px]."""
    canvas = flow.draw(diagram, width)
    return _element(f"flow-{width}", f"Requests and pools. {diagram.summary}", canvas)


def _element(name: str, told: str, canvas: Canvas) -> str:
    key, width = escape(name), canvas.width
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {canvas.height + 4:.0f}" '
        f'role="img" aria-labelledby="{key}-title" font-size="12" fill="currentColor" '
        'font-family="system-ui, Segoe UI, Roboto, Helvetica, Arial, sans-serif">'
        f'<title id="{key}-title">{escape(told)}</title>'
        f"{''.join(canvas.parts)}</svg>"
    )
