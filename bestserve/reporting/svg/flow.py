"""Flows from column to column: requests of each class, and the pools that they pass."""

from __future__ import annotations

from html import escape

from bestserve.reporting.chart import figure_text
from bestserve.reporting.fleet import Diagram
from bestserve.reporting.svg.frame import (
    LINE,
    Canvas,
    Entry,
    colour,
    legend,
    shortened,
    swatch,
)

TALL = 150.0
"""Height of all that passes the fullest column [px]."""
NODE = 10.0
GAP = 8.0
THIN = 1.5
"""Width of a node, room below one, and least height of a flow [px]."""


def draw(diagram: Diagram, width: int) -> Canvas:
    """Draw nodes as bars as high as what passes them, and flows as ribbons between."""
    canvas = Canvas(width, 0.0)
    columns = sorted({node.column for node in diagram.nodes})
    passing = [diagram.passing(i) for i in range(len(diagram.nodes))]
    most = max(
        sum(p for p, node in zip(passing, diagram.nodes, strict=True) if node.column == c)
        for c in columns
    )
    scale = TALL / most if most > 0 else 0.0
    tops, bottom = [0.0] * len(diagram.nodes), 0.0
    for c in columns:
        y = 0.0
        for i, node in enumerate(diagram.nodes):
            if node.column == c:
                y += LINE
                tops[i] = y
                y += max(passing[i] * scale, THIN) + GAP
        bottom = max(bottom, y)
    places = [_place(columns.index(node.column), len(columns), width) for node in diagram.nodes]
    classes = list(dict.fromkeys(s.request_class for s in diagram.streams))
    out, into = list(tops), list(tops)
    for stream in diagram.streams:
        thick = max(stream.rate * scale, THIN)
        ends = (
            (places[stream.source] + NODE, out[stream.source]),
            (
                places[stream.target],
                into[stream.target],
            ),
        )
        said = f"{stream.request_class}: {figure_text(stream.rate)} req/s"
        _ribbon(canvas, *ends, thick, colour(classes.index(stream.request_class)), said)
        out[stream.source] += thick
        into[stream.target] += thick
    for i, node in enumerate(diagram.nodes):
        x, high = places[i], max(passing[i] * scale, THIN)
        canvas.add(
            f'<rect x="{x:.1f}" y="{tops[i]:.1f}" width="{NODE:.0f}" height="{high:.1f}" '
            'fill="currentColor" fill-opacity="0.75"/>'
        )
        _label(canvas, i, columns.index(node.column), len(columns), (x, tops[i] - 4), diagram)
    entries = [Entry(swatch(i), name) for i, name in enumerate(classes)]
    canvas.height = legend(canvas, entries, bottom + GAP)
    return canvas


def _place(column: int, columns: int, width: int) -> float:
    return column * (width - NODE) / max(columns - 1, 1)


def _label(
    canvas: Canvas, i: int, column: int, columns: int, at: tuple[float, float], diagram: Diagram
) -> None:
    """Write a node's name above it, inside the picture and beside the next column's."""
    room = canvas.width / columns - GAP
    name = shortened(diagram.nodes[i].label, room)
    if column == 0:
        canvas.text(at[0], at[1], name)
    elif column == columns - 1:
        canvas.text(at[0] + NODE, at[1], name, "end")
    else:
        canvas.text(at[0] + NODE / 2, at[1], name, "middle")


def _ribbon(
    canvas: Canvas,
    start: tuple[float, float],
    end: tuple[float, float],
    thick: float,
    look: str,
    said: str,
) -> None:
    (x1, y1), (x2, y2) = start, end
    middle = (x1 + x2) / 2
    path = (
        f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        f"v{thick:.1f}C{middle:.1f} {y2 + thick:.1f} {middle:.1f} {y1 + thick:.1f} "
        f"{x1:.1f} {y1 + thick:.1f}Z"
    )
    canvas.add(
        f'<path {look} d="{path}" fill="currentColor" fill-opacity="0.45">'
        f"<title>{escape(said)}</title></path>"
    )
