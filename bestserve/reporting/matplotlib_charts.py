"""The same charts for papers: PNG and SVG through Matplotlib, each with its data as CSV."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bestserve.host.extras import require
from bestserve.host.writing import write_bytes, write_text
from bestserve.reporting.chart import PALETTE, Chart, ink, letter
from bestserve.results.rows import csv_text

MARKS = "osD^xP*p"
STYLES = ("-", "--", ":", "-.")
LABELLED = 8
"""Columns of a map up to which a cell has room for more than its winner's letter."""
CROWDED = 60
"""Characters below an axis from which on they are written upwards."""
SIZE = (6.3, 3.8)
"""Inches: the width of a text column of A4."""


def save_figures(charts: tuple[Chart, ...], folder: str | Path) -> list[Path]:
    """Write `<key>.png`, `<key>.svg` and `<key>.csv` of every chart; return the paths.

    MissingExtraError says what to install when Matplotlib is missing.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts:
        written += [save_figure((chart,), target / f"{chart.key}.{s}") for s in ("png", "svg")]
        written.append(save_csv(chart.records, target / f"{chart.key}.csv"))
    return written


def save_figure(charts: Sequence[Chart], path: Path) -> Path:
    """Draw charts side by side, two in a row, into one .png, .svg or .pdf; return the path.

    MissingExtraError says what to install when Matplotlib is missing.
    """
    require("a figure", "matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(charts), 2)
    down = math.ceil(len(charts) / columns)
    figure = Figure(figsize=(columns * SIZE[0], down * SIZE[1]), layout="constrained")
    FigureCanvasAgg(figure)
    for number, chart in enumerate(charts, start=1):
        draw(chart, figure.add_subplot(down, columns, number))
    # No date and a fixed salt: the same data give the same file.
    dated = {"svg": "Date", "pdf": "CreationDate"}.get(path.suffix.removeprefix("."))
    drawn = io.BytesIO()
    form = path.suffix.removeprefix(".")
    figure.savefig(drawn, format=form, dpi=200, metadata={dated: None} if dated else None)
    return write_bytes(path, drawn.getvalue())


def save_csv(records: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write rows and return the path."""
    return write_text(path, csv_text(records))


def draw(chart: Chart, axes: Any) -> None:
    """Draw a chart on Matplotlib axes."""
    {
        "lines": _lines,
        "steps": _steps,
        "points": _points,
        "waterfall": _fall,
        "bars": _bars,
        "parts": _bars,
        "map": _map,
    }[chart.kind](chart, axes)
    axes.set_xlabel(_text(chart.x_label))
    axes.set_ylabel(_text(chart.y_label))
    if chart.log_y:
        axes.set_yscale("log")
    if chart.log_x:
        axes.set_xscale("log")
    for limit in chart.limits:
        line = axes.axhline if limit.axis == "y" else axes.axvline
        line(limit.value, color=PALETTE[1], linestyle="--", linewidth=1, label=limit.name)
    if chart.kind == "waterfall":
        for limit in chart.limits:
            axes.set_title(limit.name, loc="right", fontsize="small", color=PALETTE[1])
    elif chart.kind in ("lines", "steps", "points"):
        axes.legend(fontsize="small")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _text(text: str) -> str:
    return text.replace("$", r"\$")


def _lines(chart: Chart, axes: Any) -> None:
    for i, s in enumerate(chart.series):
        axes.plot(
            s.x,
            s.y,
            STYLES[i % len(STYLES)],
            marker=MARKS[i % len(MARKS)],
            markersize=3.5,
            color=PALETTE[i % len(PALETTE)],
            label=_text(s.name),
        )


def _steps(chart: Chart, axes: Any) -> None:
    for i, s in enumerate(chart.series):
        style, colour = STYLES[i % len(STYLES)], PALETTE[i % len(PALETTE)]
        axes.step(s.x, s.y, style, where="post", color=colour, label=_text(s.name))


def _points(chart: Chart, axes: Any) -> None:
    for i, s in enumerate(chart.series):
        if s.joined:
            axes.plot(s.x, s.y, ":", color="grey", label=_text(s.name))
        else:
            colour = PALETTE[i % len(PALETTE)]
            axes.plot(s.x, s.y, MARKS[i], color=colour, alpha=0.8, label=_text(s.name))


def _fall(chart: Chart, axes: Any) -> None:
    (s,) = chart.series
    values = [float(x) for x in s.x]
    starts, total = [], 0.0
    for value in values:
        starts.append(total)
        total += value
    colours = [PALETTE[0] if v >= 0 else PALETTE[2] for v in values]
    names = [_text(str(y)) for y in s.y]
    bars = axes.barh(
        [*names, "total"],
        [*values, total],
        left=[*starts, 0.0],
        color=[*colours, PALETTE[7]],
    )
    axes.bar_label(bars, [f"{v:.0f}" for v in [*values, total]], padding=3, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max([total, *(limit.value for limit in chart.limits)]))


def _bars(chart: Chart, axes: Any) -> None:
    (s,) = chart.series
    values = [float(x) for x in s.x]
    errors = None
    if s.low:
        errors = [
            [v - low for v, low in zip(values, s.low, strict=True)],
            [high - v for v, high in zip(values, s.high, strict=True)],
        ]
    colours = [PALETTE[0] if v >= 0 else PALETTE[1] for v in values]
    axes.barh([_text(str(y)) for y in s.y], values, color=colours, xerr=errors, ecolor="grey")
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.invert_yaxis()


def _map(chart: Chart, axes: Any) -> None:
    from matplotlib.patches import Patch, Rectangle

    (s,) = chart.series
    columns, lines = list(dict.fromkeys(s.x)), list(dict.fromkeys(s.y))
    for x, y, told in zip(s.x, s.y, s.text, strict=True):
        winner, _, rest = told.partition(": ")
        i = chart.categories.index(winner)
        cell = (columns.index(x) - 0.5, lines.index(y) - 0.5)
        axes.add_patch(Rectangle(cell, 1, 1, facecolor=PALETTE[i % len(PALETTE)], edgecolor="w"))
        label = letter(i)
        if len(columns) <= LABELLED:
            label += f" {rest.split(' req/s')[0]}"
        centre = (cell[0] + 0.5, cell[1] + 0.5)
        colour = ink(PALETTE[i % len(PALETTE)])
        axes.annotate(label, centre, ha="center", va="center", color=colour, fontsize="small")
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(-0.5, len(lines) - 0.5)
    crowded = sum(len(str(name)) for name in columns) > CROWDED
    axes.set_xticks(range(len(columns)), columns, rotation=90 if crowded else 0)
    axes.set_yticks(range(len(lines)), lines)
    handles = [
        Patch(facecolor=PALETTE[i % len(PALETTE)], label=f"{letter(i)}: {_text(name)}")
        for i, name in enumerate(chart.categories)
    ]
    axes.legend(handles=handles, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
