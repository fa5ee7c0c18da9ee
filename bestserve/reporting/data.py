"""The data of every figure of the report; nothing here draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from bestserve.analysis.results import SensitivityReport
from bestserve.analysis.sweep import Sweep
from bestserve.analysis.uncertainty import Uncertainty
from bestserve.analysis.waterfall import Waterfall
from bestserve.analysis.whatif import WhatIf
from bestserve.answers.evaluate import evaluator
from bestserve.lowering import Lowered
from bestserve.models.binding import Binding
from bestserve.models.latencies import Latencies
from bestserve.models.status import LatencyStatus
from bestserve.reporting.chart import Chart, Limit, Series, figure_text, rows
from bestserve.results.ranking import RankedStrategy, Ranking
from bestserve.specs.problem import LAYOUTS
from bestserve.specs.slo import SLO
from bestserve.specs.strategy import Strategy

CURVE_POINTS = 14
LOWEST = 0.03
"""Share of the saturated rate at which curves begin; they end as far below it."""
TORNADO_BARS = 12
METRICS = ("ttft", "tpot")


def pareto_chart(ranking: Ranking, metric: str) -> Chart:
    """Goodput per GPU against TTFT or TPOT at the goodput, with the front no strategy beats."""
    front = sorted(ranking.pareto(metric), key=lambda s: float(getattr(s, metric)))
    series = []
    for name in LAYOUTS:
        chosen = [s for s in ranking.table if Strategy.parse(s.strategy).layout == name]
        if chosen:
            series.append(
                Series(
                    name,
                    x=tuple(getattr(s, metric) * 1e3 for s in chosen),
                    y=tuple(s.goodput_per_gpu for s in chosen),
                    text=tuple(s.strategy for s in chosen),
                )
            )
    series.append(
        Series(
            "front",
            x=tuple(getattr(s, metric) * 1e3 for s in front),
            y=tuple(s.goodput_per_gpu for s in front),
            text=tuple(s.strategy for s in front),
            joined=True,
        )
    )
    slo = ranking.problem.slo
    best = max(front, key=lambda s: s.goodput_per_gpu)
    quick = front[0]
    up = metric.upper()
    label = _percentile(slo, metric)
    summary = (
        f"Of {len(ranking.table)} strategies {len(front)} are on the front. The most goodput per "
        f"GPU is {best.goodput_per_gpu:.3g} req/s ({best.strategy}, {up} "
        f"{getattr(best, metric) * 1e3:.0f} ms); the lowest {up} is "
        f"{getattr(quick, metric) * 1e3:.0f} ms ({quick.strategy}, {quick.goodput_per_gpu:.3g})."
    )
    on_front = {s.strategy for s in front}
    return Chart(
        key=f"pareto-{metric}",
        title=f"Goodput per GPU against {up}",
        summary=summary,
        kind="points",
        x_label=f"{label} {up} at the goodput [ms]",
        y_label="goodput per GPU [req/s]",
        series=tuple(series),
        limits=objective_limits(slo, metric, "x"),
        records=rows(
            [
                {
                    "strategy": s.strategy,
                    f"{metric}_ms": getattr(s, metric) * 1e3,
                    "goodput_per_gpu": s.goodput_per_gpu,
                    "on_front": s.strategy in on_front,
                }
                for s in ranking.table
            ]
        ),
    )


def speed_chart(ranking: Ranking) -> Chart:
    """Output tokens/s of a GPU against those of a user, with the front no strategy beats."""
    front = ranking.front()
    known = [s for s in ranking.table if s.economics is not None]
    series = []
    for name in LAYOUTS:
        chosen = [s for s in known if Strategy.parse(s.strategy).layout == name]
        if chosen:
            series.append(_speeds(name, chosen))
    by_speed = sorted(front, key=_per_user)
    series.append(replace(_speeds("front", by_speed), joined=True))
    most, quick = front[0], front[-1]
    on_front = {s.strategy for s in front}
    return Chart(
        key="speed",
        title="Output per GPU against output per user",
        summary=(
            f"Each at its goodput. A GPU's most output is {figure_text(_per_gpu(most))} tokens/s "
            f"({most.strategy}, {_per_user(most):.3g} tokens/s for a user); the fastest answers "
            f"come at {_per_user(quick):.3g} tokens/s ({quick.strategy}, "
            f"{figure_text(_per_gpu(quick))})."
        ),
        kind="points",
        x_label="output of one user, 1/TPOT [tokens/s]",
        y_label="output of one GPU [tokens/s]",
        series=tuple(series),
        records=rows(
            [
                {
                    "strategy": s.strategy,
                    "output_per_gpu": _per_gpu(s),
                    "output_per_user": _per_user(s),
                    "on_front": s.strategy in on_front,
                }
                for s in known
            ]
        ),
    )


def _speeds(name: str, strategies: Sequence[RankedStrategy]) -> Series:
    return Series(
        name,
        x=tuple(_per_user(s) for s in strategies),
        y=tuple(_per_gpu(s) for s in strategies),
        text=tuple(s.strategy for s in strategies),
    )


def _per_gpu(s: RankedStrategy) -> float:
    return 0.0 if s.economics is None else s.economics.output_per_gpu


def _per_user(s: RankedStrategy) -> float:
    return 0.0 if s.economics is None else s.economics.output_per_user or 0.0


def scenario_chart(found: WhatIf) -> Chart:
    """Goodput under each set of changes."""
    rows_ = found.records()
    best = max(rows_, key=lambda row: float(row["goodput"]))
    return Chart(
        key="scenarios",
        title="Goodput under each change",
        summary=(
            f"The most is {best['goodput']:.3g} req/s: {best['scenario']}"
            + (f", {best['strategy']}." if best["strategy"] else ".")
        ),
        kind="bars",
        x_label="goodput [req/s]",
        y_label="",
        series=(
            Series(
                "goodput",
                x=tuple(float(row["goodput"]) for row in rows_),
                y=tuple(str(row["scenario"]) for row in rows_),
                text=tuple(str(row["strategy"] or row["binding"]) for row in rows_),
            ),
        ),
        records=rows(rows_),
    )


def rates_up_to(limit: float, points: int) -> list[float]:
    """Return rates from 3 to 97 % of a saturated rate, denser towards it, where curves rise.

    >>> [round(rate, 2) for rate in rates_up_to(10.0, 4)]
    [0.3, 6.96, 9.04, 9.7]
    """
    return [float(rate) for rate in limit * (1 - np.geomspace(1 - LOWEST, LOWEST, points))]


Drawn = Callable[[str, float], Sequence[tuple[float, Latencies]]]
"""(strategy, saturated rate [req/s]) → rates up to it, and what requests see there."""


def latencies_up_to(lowered: Lowered, strategy: str, limit: float) -> list[tuple[float, Latencies]]:
    """Return what requests see of a strategy at rates up to a saturated one [req/s]."""
    evaluate = evaluator(lowered.system(strategy))
    return [(rate, evaluate(rate)) for rate in rates_up_to(limit, CURVE_POINTS)]


def latency_charts(
    lowered: Lowered, table: Sequence[RankedStrategy], drawn: Drawn | None = None
) -> tuple[Chart, ...]:
    """TTFT and TPOT at the objectives' percentiles over the request rate, one line a strategy.

    table : the strategies' rows, whose saturated rate and goodput are what is said of them
    drawn : what is known of their latencies; default: evaluated here
    """
    slo = lowered.problem.slo
    read = drawn or partial(latencies_up_to, lowered)
    found: dict[str, list[tuple[str, float, float]]] = {m: [] for m in METRICS}
    for row in table:
        for rate, at in read(row.strategy, row.goodput / row.utilisation):
            if at.status is LatencyStatus.OK:
                for metric in METRICS:
                    value = getattr(at, metric).quantile(_share(slo, metric))
                    found[metric].append((row.strategy, rate, value * 1e3))
    return tuple(_curve(found[m], table, m, slo) for m in METRICS)


def _curve(
    points: list[tuple[str, float, float]],
    table: Sequence[RankedStrategy],
    metric: str,
    slo: SLO | None,
) -> Chart:
    up, label = metric.upper(), _percentile(slo, metric)
    threshold = getattr(slo, metric) if slo is not None else None
    strategies = [row.strategy for row in table]
    parts = []
    for row in table:
        own = [(rate, ms) for n, rate, ms in points if n == row.strategy]
        if threshold is not None and own:
            until = held_until(row, metric, crossing(own, threshold * 1e3))
            parts.append(f"{row.strategy} to {until:.3g}")
    tail = ""
    if threshold is not None:
        tail = f" The objective of {threshold * 1e3:.0f} ms holds for {', '.join(parts)} req/s."
    return Chart(
        key=f"{metric}-curve",
        title=f"{up} against the request rate",
        summary=f"{label} {up} rises with the rate until saturation.{tail}",
        kind="lines",
        x_label="request rate of the service [req/s]",
        y_label=f"{label} {up} [ms]",
        series=tuple(
            Series(
                name,
                x=tuple(rate for n, rate, _ in points if n == name),
                y=tuple(ms for n, _, ms in points if n == name),
            )
            for name in strategies
        ),
        limits=objective_limits(slo, metric, "y"),
        records=rows(
            [{"strategy": n, "request_rate": rate, f"{metric}_ms": ms} for n, rate, ms in points]
        ),
        log_y=metric == "ttft",
    )


def held_until(row: RankedStrategy, metric: str, drawn: float) -> float:
    """Return the rate up to which an objective holds: where it limits the goodput, that [req/s].

    drawn : where the curve passes the threshold, which may be a formula's beside a run's goodput
    """
    return row.goodput if row.binding.key == metric else max(drawn, row.goodput)


def crossing(points: Sequence[tuple[float, float]], threshold: float) -> float:
    """Return the rate at which a rising curve of (rate, latency) passes a threshold; 0: never met.

    >>> crossing([(1.0, 10.0), (2.0, 30.0)], 20.0)
    1.5
    """
    met = 0.0
    for (rate, value), (following, higher) in itertools.pairwise([*points, (math.inf, math.inf)]):
        if value > threshold:
            break
        met = rate
        if threshold < higher < math.inf:
            met += (following - rate) * (threshold - value) / (higher - value)
            break
    return met


def waterfall_chart(fall: Waterfall, strategy: str) -> Chart:
    """How one latency at the goodput comes about, part by part."""
    up = fall.metric.upper()
    name = f"P{fall.percentile:g} {up}"
    largest = max(fall.parts, key=lambda p: p.seconds)
    against = "" if fall.threshold is None else f" of {fall.threshold * 1e3:.0f} ms allowed"
    objective = f"objective {(fall.threshold or 0.0) * 1e3:.0f} ms"
    limits = () if fall.threshold is None else (Limit(fall.threshold * 1e3, objective, "x"),)
    return Chart(
        key=f"{fall.metric}-waterfall",
        title=f"What makes the {up} of {strategy}",
        summary=(
            f"{name} at the goodput is {fall.value * 1e3:.0f} ms{against}; the largest part is "
            f"{largest.name} with {largest.seconds * 1e3:.0f} ms."
        ),
        kind="waterfall",
        x_label=f"{name} [ms]",
        y_label="",
        series=(
            Series(
                name,
                x=tuple(p.seconds * 1e3 for p in fall.parts),
                y=tuple(p.name for p in fall.parts),
            ),
        ),
        limits=limits,
        records=rows(fall.records()),
    )


def tornado_chart(found: SensitivityReport) -> Chart:
    """Elasticities of goodput, the largest first, with those of the latencies in the table."""
    shown = [r for r in found.ordered() if abs(r.goodput) >= 5e-3][:TORNADO_BARS]
    lead = shown[0]
    summary = (
        f"Goodput of {found.strategy} stops at its {Binding.of(found.binding).short}; "
        f"one per cent more {lead.parameter} changes it by {lead.goodput:+.2f} %."
    )
    other = next((r for r in shown if r.parameter.startswith("hardware.")), None)
    if other is not None and other is not lead:
        summary += f" Of the hardware, {other.parameter} counts most: {other.goodput:+.2f} %."
    return Chart(
        key="tornado",
        title="What one per cent more of a figure does to goodput",
        summary=summary,
        kind="bars",
        x_label="change of goodput [% per %]",
        y_label="",
        series=(
            Series(
                "elasticity",
                x=tuple(r.goodput for r in shown),
                y=tuple(r.parameter for r in shown),
                text=tuple(f"{r.value:.4g} {r.unit}" for r in shown),
            ),
        ),
        records=rows(
            [
                {
                    "parameter": r.parameter,
                    "value": r.value,
                    "unit": r.unit,
                    "goodput": r.goodput,
                    "ttft_mean": r.ttft["mean"],
                    "ttft_p90": r.ttft["p90"],
                    "tpot_mean": r.tpot["mean"],
                    "tpot_p90": r.tpot["p90"],
                }
                for r in found.ordered()
                if not math.isnan(r.goodput)
            ]
        ),
    )


def map_chart(found: Sweep) -> Chart:
    """Which strategy wins where, over two figures (or goodput over one)."""
    if len(found.axes) == 1:
        return _line_map(found)
    winners = [w or "none feasible" for w in found.winners()]
    order = sorted(dict.fromkeys(winners), key=lambda w: -winners.count(w))
    points = found.points()
    first = found.axes[0]
    share = winners.count(order[0]) / len(winners)
    text = tuple(
        f"{w}: {best:.3g} req/s" + (f"; within 2 %: {', '.join(tied)}" if len(tied) > 1 else "")
        for w, best, tied in zip(winners, found.best(), found.tied(), strict=True)
    )
    return Chart(
        key="winner-map",
        title="Which strategy wins where",
        summary=(
            f"{len(order)} strategies win somewhere; {order[0]} at {share:.0%} of the points of "
            f"{first.name} and {found.axes[1].name}."
        ),
        kind="map",
        x_label=_axis_label(found, 0),
        y_label=_axis_label(found, 1),
        series=(
            Series(
                "winner",
                x=tuple(str(p[0]) for p in points),
                y=tuple(str(p[1]) for p in points),
                text=text,
            ),
        ),
        categories=tuple(order),
        records=rows(found.records()),
        notes=(
            "Each cell is labelled with the winner's goodput in requests per second.",
            f"Candidates: {', '.join(found.strategies)}.",
        ),
    )


def _axis_label(found: Sweep, index: int) -> str:
    axis = found.axes[index]
    return f"{axis.name}, factor" if axis.factors else axis.name


def _line_map(found: Sweep) -> Chart:
    points = [str(p[0]) for p in found.points()]
    series = []
    for j, name in enumerate(found.strategies):
        kept = [(p, row[j]) for p, row in zip(points, found.goodput, strict=True) if row[j]]
        if kept:
            series.append(
                Series(name, x=tuple(p for p, _ in kept), y=tuple(g or 0.0 for _, g in kept))
            )
    winners = found.winners()
    return Chart(
        key="winner-map",
        title="Goodput of the leading strategies",
        summary=f"Best at the ends: {winners[0] or 'none'} and {winners[-1] or 'none'}.",
        kind="lines",
        x_label=_axis_label(found, 0),
        y_label="goodput [req/s]",
        series=tuple(series),
        records=rows(found.records()),
        notes=("Strategies more than 2 % below the best are left out at a point.",),
    )


def sobol_chart(found: Uncertainty) -> Chart:
    """Total Sobol indices of the winner's goodput with their 95 % intervals."""
    lead = found.measurement
    return Chart(
        key="sobol",
        title="Where the uncertainty of goodput comes from",
        summary=(
            f"{lead.factor.name} alone causes {lead.first:.0%} ({lead.first_low:.0%} to "
            f"{lead.first_high:.0%}) of the variance of {found.winner.strategy}'s goodput."
        ),
        kind="bars",
        x_label="share of the variance it takes part in (total Sobol index)",
        y_label="",
        series=(
            Series(
                "total index",
                x=tuple(i.total for i in found.indices),
                y=tuple(i.factor.name for i in found.indices),
                text=tuple(f"sd of the logarithm {i.sd:g}" for i in found.indices),
                low=tuple(i.total_low for i in found.indices),
                high=tuple(i.total_high for i in found.indices),
            ),
        ),
        records=rows(found.records()),
    )


def _share(slo: SLO | None, metric: str) -> float:
    return 0.9 if slo is None else slo.percentile_of(metric) / 100


def _percentile(slo: SLO | None, metric: str) -> str:
    return f"P{100 * _share(slo, metric):g}"


def objective_limits(slo: SLO | None, metric: str, axis: str) -> tuple[Limit, ...]:
    """Return the threshold of an objective as a line across an axis, if there is one [ms]."""
    threshold = getattr(slo, metric) if slo is not None else None
    if threshold is None:
        return ()
    name = f"objective {threshold * 1e3:.0f} ms"
    return (Limit(threshold * 1e3, name, "x" if axis == "x" else "y"),)
