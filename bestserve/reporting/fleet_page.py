"""A fleet's plan as one HTML page that needs no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from bestserve.fleet.result import UNITS, Allocation
from bestserve.reporting.chart import Chart
from bestserve.reporting.fleet import (
    comparison_chart,
    curve_chart,
    fleet_diagram,
    plotly_diagram,
)
from bestserve.reporting.plotly_charts import figure, plotly_library, script_json
from bestserve.reporting.templates import cell, heading, numeric

STYLE = """
body{font:16px system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;font-size:.9rem}
th,td{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
pre{background:#f6f6f6;padding:1rem;overflow-x:auto;font-size:.85rem}
div.wide{overflow-x:auto}
"""

Points = Sequence[dict[str, float]]


def fleet_page(
    allocation: Allocation, budgets: Points | None = None, demands: Points | None = None
) -> str:
    """Return the page: certificate, diagram, pools, comparison, and curves where given.

    budgets, demands : points of `budget_curve` and `demand_curve`
    MissingExtraError says what to install when Plotly is missing.
    """
    charts = _charts(allocation, budgets, demands)
    verdict, *rest = allocation.explain().splitlines()
    parts = [
        f"<h1>{escape(verdict)}</h1>",
        f"<pre>{escape(chr(10).join(line.strip() for line in rest))}</pre>",
        "<h2>Who serves what</h2>",
        "<p>Request classes on the left, the pools that take them, and where their KV cache goes. "
        "Widths are requests per second; point at a stream for its figures.</p>",
        _drawn("diagram", plotly_diagram(fleet_diagram(allocation))),
        "<h2>Pools</h2>",
        _table(allocation.records()),
    ]
    for chart in charts:
        parts += [
            f"<h2>{escape(chart.title)}</h2><p>{escape(chart.summary)}</p>",
            _drawn(chart.key, figure(chart)),
            _table(chart.records),
        ]
    if allocation.verification:
        parts += ["<h2>Simulated with fresh requests</h2>", _table(_checks(allocation))]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>bestserve: fleet</title><style>{STYLE}</style>"
        f"<script>{plotly_library()}</script></head><body>{''.join(parts)}</body></html>"
    )


def _charts(allocation: Allocation, budgets: Points | None, demands: Points | None) -> list[Chart]:
    """Return the charts that have something to show."""
    charts = []
    if any(u.objective is not None for u in allocation.uniform):
        charts.append(comparison_chart(allocation))
    bought = UNITS["max_headroom"] if allocation.unit == UNITS["min_cost"] else allocation.unit
    units = ((budgets, bought), (demands, UNITS["min_cost"]))
    for points, unit in units:
        if points and any(p["objective"] == p["objective"] for p in points):
            charts.append(curve_chart(points, unit))
    return charts


def _checks(allocation: Allocation) -> list[dict[str, Any]]:
    """Return one row per pool, class and objective that was simulated."""
    return [
        {
            "pool": v.pool,
            "class": v.request_class,
            "objective": v.metric.upper(),
            "met by": f"{v.share:.1%} ± {v.error:.1%}",
            "required": f"{v.required:.0%}",
            "may fall short by": f"{v.tolerance:.1%}",
            "holds": v.ok,
        }
        for v in allocation.verification
    ]


def _drawn(key: str, drawn: Mapping[str, Any]) -> str:
    """Return the element and the script that draws a Plotly figure into it."""
    return (
        f'<div class="wide" id="{key}"></div><script>Plotly.newPlot("{key}", '
        f"{script_json(drawn['data'])}, {script_json(drawn['layout'])}, "
        '{"responsive": true})</script>'
    )


def _table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as an HTML table, numbers to the right."""
    if not records:
        return ""
    names = list(records[0])
    right = {name for name in names if numeric(records, name)}
    head = "".join(f"<th>{escape(heading(name))}</th>" for name in names)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if name in right else ''}>{escape(cell(_known(row[name])))}</td>"
            for name in names
        )
        + "</tr>"
        for row in records
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _known(value: Any) -> Any:
    """Return a value, or None where it is not finite (a point without a plan)."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
