"""Where measured runs would lie, as bands around latency curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bestserve.answers.predict import predict_strategy
from bestserve.answers.prediction_intervals import prediction_intervals
from bestserve.lowering import Lowered
from bestserve.reporting.chart import Chart
from bestserve.specs.strategy import Strategy
from bestserve.units import milliseconds

KNOWN = {50.0: "p50", 90.0: "p90", 99.0: "p99"}
"""Percentiles of which intervals are known."""

TELLING = 10.0
"""Upper over lower end of an interval up to which it tells something [1]."""


def banded(lowered: Lowered, strategy: str, charts: Sequence[Chart]) -> tuple[Chart, ...]:
    """Return latency charts with the 90 % interval of one strategy around its line.

    An interval without an upper end, where the rate might not be sustained, ends with the picture.
    """
    parsed = Strategy.parse(strategy)
    rates = next((s.x for c in charts for s in c.series if s.name == strategy), ())
    found = []
    for rate in rates:
        prediction = predict_strategy(lowered, parsed, float(rate), "analytic")
        found.append(prediction_intervals(lowered, parsed, prediction))
    return tuple(_with_band(lowered, chart, strategy, found) for chart in charts)


def _with_band(
    lowered: Lowered, chart: Chart, strategy: str, found: list[dict[str, tuple[float, float]]]
) -> Chart:
    metric = chart.key.removesuffix("-curve")
    slo = lowered.problem.slo
    statistic = KNOWN.get(90.0 if slo is None else slo.percentile_of(metric))
    name = f"{metric}_{statistic}"
    if statistic is None or not found or any(name not in at for at in found):
        return chart
    ends = [tuple(map(milliseconds, at[name])) for at in found]
    widths = sorted(high / low for low, high in ends if low > 0)
    if not widths or widths[len(widths) // 2] > TELLING:
        note = f"Where 90 % of measured runs of {strategy} lie is not known well enough to draw."
        return replace(chart, notes=(*chart.notes, note))
    most = 1.2 * max(float(y) for s in chart.series for y in s.y)
    low, high = tuple(low for low, _ in ends), tuple(min(h, most) for _, h in ends)
    note = f"The band holds 90 % of measured runs of {strategy}."
    series = tuple(
        replace(s, low=low, high=high) if s.name == strategy else s for s in chart.series
    )
    return replace(chart, series=series, notes=(*chart.notes, note))
