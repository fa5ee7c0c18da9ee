"""Latency and attainment over the request rate, as data and as plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.latency import stability_rate
from bestserve.predicting import Method, checked_rate, predict_strategy
from bestserve.reporting.chart import Chart, Series, rows
from bestserve.reporting.data import objective_limits
from bestserve.reporting.matplotlib_charts import save_csv, save_figure
from bestserve.reporting.plotly_charts import figure, page_of
from bestserve.results import Document, Prediction, Status, Summary, plain
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy
from bestserve.units import milliseconds

METRICS = ("ttft", "tpot", "e2el")
STATISTICS = ("mean", "p50", "p90", "p99")
HIGHEST = 0.97
"""Share of the saturation rate at which default curves end."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Curves(Document):
    """Predictions of one or several strategies over the request rate.

    points : one `Prediction` per strategy and rate, rates ascending; a rate that the strategy
        cannot sustain has its status and no latencies
    """

    problem: Problem
    strategies: tuple[str, ...]
    points: tuple[Prediction, ...]

    def content(self) -> dict[str, Any]:
        """Return the answer as plain data; the problem stands there once."""
        shown = [f.name for f in fields(Prediction) if f.name != "problem"]
        points = [{name: plain(getattr(p, name)) for name in shown} for p in self.points]
        return {
            "problem": plain(self.problem),
            "strategies": list(self.strategies),
            "points": points,
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one row per strategy and rate: mean, P50, P90 and P99 of each latency [ms]."""
        found = []
        for p in self.points:
            row: dict[str, Any] = {
                "strategy": p.strategy,
                "request_rate": p.request_rate,
                "status": p.status.name.lower(),
                "utilisation": p.utilisation,
            }
            for metric in METRICS:
                summary: Summary | None = getattr(p, metric)
                for statistic in STATISTICS:
                    value = None if summary is None else milliseconds(getattr(summary, statistic))
                    row[f"{metric}_{statistic}_ms"] = value
            row["attainment"] = p.attainment
            row |= {f"attainment_{m}": p.attainment_by.get(m) for m in METRICS}
            found.append({**row, "method": p.method, "trust": p.trust.level})
        return found

    def explain(self) -> str:
        """Return one sentence per strategy: where it saturates, and how many meet objectives."""
        lines = []
        for name in self.strategies:
            own = [p for p in self.points if p.strategy == name]
            held = [p for p in own if p.status is Status.OK]
            limits = [p.stability_limit for p in own if p.stability_limit]
            line = f"{name}: " + (f"saturates at {min(limits):.4g} req/s" if limits else "")
            shares = [(p.attainment, p.request_rate) for p in held if p.attainment is not None]
            if shares:
                (first, low), (last, high) = shares[0], shares[-1]
                line += f"; {first:.0%} of requests meet all objectives at {low:.3g} req/s"
                line += f", {last:.0%} at {high:.3g}"
            simulated = sum(p.method == "simulated" for p in held)
            lines.append(f"{line}; {simulated} of {len(held)} points simulated")
        return "\n".join(lines)

    def charts(self) -> tuple[Chart, ...]:
        """Return one chart per latency and, with objectives, one of the attainment."""
        found = [_latency_chart(self, metric) for metric in METRICS]
        return tuple([*found, _attainment_chart(self)] if self.problem.slo else found)

    def figure(self, metric: str = "ttft") -> Any:
        """Return a Plotly figure of "ttft", "tpot", "e2el" or "attainment".

        ImportError says what to install when Plotly is missing.
        """
        charts = {chart.key.removesuffix("-curve"): chart for chart in self.charts()}
        if metric not in charts:
            raise InputError(f"no curve of {metric[:40]!r}: take one of {', '.join(charts)}")
        try:
            from plotly.graph_objects import Figure
        except ImportError:
            raise ImportError("a figure needs plotly: pip install 'bestserve[report]'") from None
        return Figure(figure(charts[metric]))

    def save(self, path: str | Path) -> Path:
        """Write all plots into one .html, .png, .svg or .pdf, or the rows into a .csv."""
        target = Path(path)
        if target.suffix == ".html":
            target.write_text(page_of(self.charts()), encoding="utf-8")
        elif target.suffix == ".csv":
            save_csv(self.records(), target)
        elif target.suffix in (".png", ".svg", ".pdf"):
            save_figure(self.charts(), target)
        else:
            raise InputError(f"plot {target.name!r}: end it in .html, .png, .svg, .pdf or .csv")
        return target


def curves(
    problem: Problem,
    strategies: str | Strategy | Sequence[str | Strategy],
    *,
    rates: Sequence[float] | None = None,
    points: int = 20,
    method: Method = "auto",
    progress: Progress | None = None,
) -> Curves:
    """Return mean and percentiles of TTFT, TPOT and E2EL, and the attainment, over the rate.

    Parameters
    ----------
    strategies : one or several, "2m-tp4"
    rates : of the whole service [requests/s]; default: `points` rates up to 97 % of what each
        strategy sustains, denser towards its end
    method : "auto" simulates the points whose analytic answer carries low trust

    Raises as `predict`; InputError for closed loops, whose clients set the rate.
    """
    if problem.workload.closed:
        raise InputError("a closed loop sets its own rate: leave max_concurrency out of a curve")
    if not 2 <= points <= 1000:
        raise InputError(f"points = {points} must be between 2 and 1000")
    several = [strategies] if isinstance(strategies, str | Strategy) else list(strategies)
    parsed = [Strategy.parse(s) for s in several]
    if not parsed:
        raise InputError("no strategy given: write one as 2m-tp4 or 1p1d-tp4")
    lowered = lower(problem)
    found = []
    for strategy in parsed:
        system = lowered.system(strategy)
        if rates is None:
            shares = 1 - np.geomspace(1.0, 1 - HIGHEST, points + 1)[1:]
            own = [float(share * stability_rate(system)) for share in shares]
        else:
            own = sorted(checked_rate(problem, rate) for rate in rates)
        for rate in own:
            if progress is not None:
                progress(f"{strategy} at {rate:.3g} req/s")
            found.append(predict_strategy(lowered, strategy, rate, method))
    return Curves(problem, tuple(str(s) for s in parsed), tuple(found))


def _latency_chart(found: Curves, metric: str) -> Chart:
    """Mean and percentiles of one strategy; of several, the objective's percentile or P90."""
    up = metric.upper()
    alone = len(found.strategies) == 1
    shown = STATISTICS if alone else ("p90",)
    series = []
    for name in found.strategies:
        held = [p for p in found.points if p.strategy == name and p.status is Status.OK]
        x = tuple(p.request_rate for p in held)
        for s in shown:
            y = tuple(milliseconds(getattr(getattr(p, metric), s)) for p in held)
            series.append(Series(s.replace("p", "P") if alone else name, x=x, y=y))
    figures = "Mean and percentiles" if alone else "P90"
    return Chart(
        key=f"{metric}-curve",
        title=f"{up} against the request rate" + (f" of {found.strategies[0]}" if alone else ""),
        summary=f"{figures} of {up} over the request rate, up to saturation.",
        kind="lines",
        x_label="request rate of the service [req/s]",
        y_label=f"{up} [ms]" if alone else f"P90 {up} [ms]",
        series=tuple(series),
        limits=objective_limits(found.problem.slo, metric, "y"),
        records=rows(found.records()),
        log_y=metric != "tpot",
    )


def _attainment_chart(found: Curves) -> Chart:
    """Share of requests that meet each objective and all of them."""
    alone = len(found.strategies) == 1
    series = []
    for name in found.strategies:
        held = [p for p in found.points if p.strategy == name and p.status is Status.OK]
        x = tuple(p.request_rate for p in held)
        together = "all objectives" if alone else name
        series.append(Series(together, x=x, y=tuple(100 * (p.attainment or 0.0) for p in held)))
        for m in held[0].attainment_by if alone and held else ():
            y = tuple(100 * p.attainment_by[m] for p in held)
            series.append(Series(m.upper(), x=x, y=y))
    return Chart(
        key="attainment-curve",
        title="Attainment against the request rate",
        summary="Share of requests that meet the objectives, over the request rate.",
        kind="lines",
        x_label="request rate of the service [req/s]",
        y_label="requests that meet objectives [%]",
        series=tuple(series),
        records=rows(found.records()),
    )
