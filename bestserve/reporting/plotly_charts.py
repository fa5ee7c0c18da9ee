"""Charts as Plotly figures: plain dictionaries, so that only the page needs the library."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from bestserve.host.extras import require
from bestserve.reporting.chart import DASHES, MARKERS, PALETTE, Chart, ink, letter

ROW_HEIGHT = 26


def plotly_library() -> str:
    """Return plotly.js as the installed package has it. MissingExtraError says what to install."""
    require("the page", "plotly")
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def script_json(value: Any) -> str:
    """Return JSON that cannot end the script element or start a comment in it."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def figure(chart: Chart) -> dict[str, Any]:
    """Return data and layout; colours of text, grid and paper are the page's."""
    draw = {
        "lines": _lines,
        "steps": _steps,
        "points": _points,
        "waterfall": _waterfall,
        "bars": _bars,
        "parts": _bars,
        "map": _map,
    }[chart.kind]
    traces = draw(chart)
    shapes = [_shape(limit.value, limit.axis) for limit in chart.limits]
    notes = [_note(limit.value, limit.name, limit.axis, chart.log_y) for limit in chart.limits]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": plain(chart.x_label)}, "automargin": True},
        "yaxis": {"title": {"text": plain(chart.y_label)}, "automargin": True},
        "shapes": shapes,
        "annotations": notes,
        "showlegend": len(traces) > 1,
        "legend": {"orientation": "h", "y": -0.3, "x": 0, "xanchor": "left"},
        "margin": {"l": 60, "r": 20, "t": 20, "b": 65},
        "height": 400,
        "hovermode": "closest",
    }
    if chart.log_y:
        layout["yaxis"]["type"] = "log"
        ticks = log_ticks([float(y) for s in chart.series for y in s.y])
        layout["yaxis"] |= {"tickvals": ticks, "ticktext": [f"{t:,.4g}" for t in ticks]}
    if chart.log_x:
        layout["xaxis"]["type"] = "log"
    if chart.kind in ("bars", "parts", "waterfall"):
        layout["yaxis"]["autorange"] = "reversed"
        layout["height"] = 125 + ROW_HEIGHT * (len(chart.series[0].y) + 1)
    if chart.kind in ("bars", "parts"):
        values = [0.0, *(float(x) for x in chart.series[0].x), *chart.series[0].high]
        # Room for the numbers beside the bars, on narrow screens too.
        space = 0.2 * (max(values) - min(values))
        left = min(values) - space if min(values) < 0 else 0.0
        layout["xaxis"]["range"] = [left, max(values) + space]
    if chart.kind == "waterfall":
        ends = [sum(float(x) for x in chart.series[0].x), *(li.value for li in chart.limits)]
        layout["xaxis"]["range"] = [0, 1.12 * max(ends)]
    if chart.kind in ("points", "lines", "steps") and not chart.log_y:
        layout["yaxis"]["rangemode"] = "tozero"
    if chart.kind == "map":
        layout["xaxis"] |= {"type": "category"}
        layout["yaxis"] |= {"type": "category"}
        layout["annotations"] = _cells(chart)
    return {"data": traces, "layout": layout}


def log_ticks(values: Sequence[float]) -> list[float]:
    """Return 1, 2, 5, 10, … around positive values.

    >>> log_ticks([30.0, 400.0])
    [20.0, 50.0, 100.0, 200.0, 500.0]
    """
    if not values:
        return []
    decades = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    every = [float(f"{digit}e{power}") for power in decades for digit in (1, 2, 5)]
    low = max((t for t in every if t <= min(values)), default=every[0])
    high = min((t for t in every if t >= max(values)), default=every[-1])
    return [t for t in every if low <= t <= high]


def plain(text: str) -> str:
    """Return text that Plotly, which reads a little HTML, shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _lines(chart: Chart) -> list[dict[str, Any]]:
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": plain(s.name),
            "x": list(s.x),
            "y": list(s.y),
            "line": {"color": _colour(i), "dash": DASHES[i % len(DASHES)], "width": 2},
            "marker": {"symbol": MARKERS[i % len(MARKERS)], "size": 6},
        }
        for i, s in enumerate(chart.series)
    ]


def _steps(chart: Chart) -> list[dict[str, Any]]:
    """Lines that keep each value until the next."""
    return [
        trace | {"mode": "lines", "line": trace["line"] | {"shape": "hv"}}
        for trace in _lines(chart)
    ]


def _points(chart: Chart) -> list[dict[str, Any]]:
    traces = []
    for i, s in enumerate(chart.series):
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines" if s.joined else "markers",
            "name": plain(s.name),
            "x": list(s.x),
            "y": list(s.y),
            "text": [plain(t) for t in s.text],
            "hovertemplate": "%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
        }
        if s.joined:
            trace["line"] = {"color": "#7F7F7F", "dash": "dot", "width": 1.5}
        else:
            trace["marker"] = {
                "color": _colour(i),
                "symbol": MARKERS[i % len(MARKERS)],
                "size": 9,
                "opacity": 0.8,
            }
        traces.append(trace)
    return traces


def _waterfall(chart: Chart) -> list[dict[str, Any]]:
    (s,) = chart.series
    values = [float(x) for x in s.x]
    names = [plain(str(y)) for y in s.y]
    return [
        {
            "type": "waterfall",
            "orientation": "h",
            "y": [*names, "total"],
            "x": [*values, sum(values)],
            "measure": ["relative"] * len(names) + ["total"],
            "text": [f"{v:.0f}" for v in [*values, sum(values)]],
            "textposition": "outside",
            "cliponaxis": False,
            "increasing": {"marker": {"color": PALETTE[0]}},
            "decreasing": {"marker": {"color": PALETTE[2]}},
            "totals": {"marker": {"color": PALETTE[7]}},
            "connector": {"line": {"color": "#7F7F7F", "width": 1}},
            "hovertemplate": "%{y}: %{text} ms<extra></extra>",
        }
    ]


def _bars(chart: Chart) -> list[dict[str, Any]]:
    (s,) = chart.series
    values = [float(x) for x in s.x]
    bar: dict[str, Any] = {
        "type": "bar",
        "orientation": "h",
        "x": values,
        "y": [plain(str(y)) for y in s.y],
        "customdata": [plain(t) for t in s.text],
        "text": [f"{v:+.2f}" if min(values) < 0 else f"{v:.2f}" for v in values],
        "textposition": "auto" if s.low else "outside",
        "cliponaxis": False,
        "marker": {"color": [PALETTE[0] if v >= 0 else PALETTE[1] for v in values]},
        "hovertemplate": "%{y} (%{customdata}): %{x:.3f}<extra></extra>",
    }
    if s.low:
        bar["text"] = []
        bar["error_x"] = {
            "type": "data",
            "symmetric": False,
            "array": [h - v for h, v in zip(s.high, values, strict=True)],
            "arrayminus": [v - low for v, low in zip(values, s.low, strict=True)],
            "color": "#7F7F7F",
        }
    return [bar]


def _map(chart: Chart) -> list[dict[str, Any]]:
    """One heat map a winner, so that the legend names them; cells of others stay empty."""
    (s,) = chart.series
    columns, lines = list(dict.fromkeys(s.x)), list(dict.fromkeys(s.y))
    traces = []
    for i, category in enumerate(chart.categories):
        z: list[list[int | None]] = [[None] * len(columns) for _ in lines]
        text = [[""] * len(columns) for _ in lines]
        for x, y, told in zip(s.x, s.y, s.text, strict=True):
            if told.partition(": ")[0] == category:
                z[lines.index(y)][columns.index(x)] = 1
                text[lines.index(y)][columns.index(x)] = plain(told)
        traces.append(
            {
                "type": "heatmap",
                "name": f"{letter(i)}: {plain(category)}",
                "x": columns,
                "y": lines,
                "z": z,
                "text": text,
                "colorscale": [[0, _colour(i)], [1, _colour(i)]],
                "showscale": False,
                "showlegend": True,
                "xgap": 2,
                "ygap": 2,
                "hovertemplate": "%{x}, %{y}<br>%{text}<extra></extra>",
            }
        )
    return traces


def _cells(chart: Chart) -> list[dict[str, Any]]:
    (s,) = chart.series
    notes = []
    for x, y, told in zip(s.x, s.y, s.text, strict=True):
        winner, _, rest = told.partition(": ")
        index = chart.categories.index(winner)
        # The letter says what the colour says.
        label = f"{letter(index)} {rest.split(' req/s')[0]}"
        notes.append(
            {
                "x": x,
                "y": y,
                "text": label,
                "showarrow": False,
                "font": {"size": 11, "color": ink(_colour(index))},
            }
        )
    return notes


def _colour(i: int) -> str:
    return PALETTE[i % len(PALETTE)]


def _shape(value: float, axis: str) -> dict[str, Any]:
    line = {"color": PALETTE[1], "width": 1.5, "dash": "dash"}
    if axis == "y":
        place = {"xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value}
    else:
        place = {"yref": "paper", "y0": 0, "y1": 1, "x0": value, "x1": value}
    return {"type": "line", "line": line, **place}


def _note(value: float, name: str, axis: str, log: bool) -> dict[str, Any]:
    at = math.log10(value) if log and axis == "y" else value
    note: dict[str, Any] = {"text": plain(name), "showarrow": False, "font": {"size": 11}}
    if axis == "y":
        return note | {"xref": "paper", "x": 0, "xanchor": "left", "y": at, "yanchor": "bottom"}
    return note | {"yref": "paper", "y": 1, "yanchor": "top", "x": at, "xanchor": "right"}
