"""Latency, attainment and throughput over the load, as data and as plots.

The load is the request rate or, where clients wait for their answers, their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from bestserve.answers.doubts import trust_in
from bestserve.answers.predict import Method, Service, checked_method, checked_rate
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.latency import stability_rate
from bestserve.reporting.chart import Chart, Series, rows
from bestserve.reporting.data import objective_limits, rates_up_to
from bestserve.results.document import Summary, plain
from bestserve.results.drawn import Drawn
from bestserve.results.prediction import Prediction
from bestserve.results.ranking import pareto_front
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy
from bestserve.units import milliseconds

METRICS = ("ttft", "tpot", "e2el")
STATISTICS = ("mean", "p50", "p90", "p99")
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Curves(Drawn):
    """Predictions of one or several strategies over the load.

    points : one `Prediction` per strategy and load, loads ascending; a rate that the strategy
        cannot sustain has its status and no latencies
    output_len : mean answer [tokens]
    """

    problem: Problem
    strategies: tuple[str, ...]
    points: tuple[Prediction, ...]
    output_len: float

    def content(self) -> dict[str, Any]:
        """Return the answer as plain data; the problem stands there once."""
        shown = [f.name for f in fields(Prediction) if f.name != "problem"]
        points = [
            {
                "max_concurrency": p.problem.workload.max_concurrency,
                **{name: plain(getattr(p, name)) for name in shown},
            }
            for p in self.points
        ]
        return {
            "problem": plain(self.problem),
            "strategies": list(self.strategies),
            "output_len": self.output_len,
            "points": points,
        }

    def records(self) -> list[dict[str, Any]]:
        """Return one row per strategy and load: mean, P50, P90 and P99 of each latency [ms].

        output_per_gpu : output tokens per second and GPU; output_per_user : 1/TPOT [tokens/s]
        """
        found = []
        for p in self.points:
            row: dict[str, Any] = {
                "strategy": p.strategy,
                "max_concurrency": p.problem.workload.max_concurrency,
                "request_rate": p.request_rate,
                "status": p.status.name.lower(),
                "utilisation": p.utilisation,
            }
            for metric in METRICS:
                summary: Summary | None = getattr(p, metric)
                for statistic in STATISTICS:
                    value = None if summary is None else milliseconds(getattr(summary, statistic))
                    row[f"{metric}_{statistic}_ms"] = value
            per_gpu, per_user = self._speeds(p)
            row |= {"output_per_gpu": per_gpu, "output_per_user": per_user}
            row["attainment"] = p.attainment
            row |= {f"attainment_{m}": p.attainment_by.get(m) for m in METRICS}
            found.append({**row, "method": p.method, "trust": p.trust.level})
        return found

    def _speeds(self, p: Prediction) -> tuple[float | None, float | None]:
        """Return output tokens per second of a GPU, and of one user while the answer runs."""
        if p.tpot is None:
            return None, None
        per_gpu = p.request_rate * self.output_len / Strategy.parse(p.strategy).gpus
        return per_gpu, 1 / p.tpot.mean if p.tpot.mean > 0 else None

    def explain(self) -> str:
        """Return one sentence per strategy: where it saturates, and how many meet objectives."""
        lines = []
        for name in self.strategies:
            own = [p for p in self.points if p.strategy == name]
            held = self.held(name)
            limits = [p.stability_limit for p in own if p.stability_limit]
            most = max((p.request_rate for p in held), default=0.0)
            ends = f"saturates at {min(limits):.4g}" if limits else f"carries up to {most:.4g}"
            line = f"{name}: {ends} req/s"
            shares = [(p.attainment, p.request_rate) for p in held if p.attainment is not None]
            if shares:
                (first, low), (last, high) = shares[0], shares[-1]
                line += f"; {first:.0%} of requests meet all objectives at {low:.3g} req/s"
                line += f", {last:.0%} at {high:.3g}"
            simulated = sum(p.method == "simulated" for p in held)
            lines.append(f"{line}; {simulated} of {len(held)} points simulated")
        return "\n".join(lines)

    def charts(self) -> tuple[Chart, ...]:
        """Return one chart per latency, one of the speeds and, with objectives, the attainment."""
        found = [*(_latency_chart(self, metric) for metric in METRICS), _speed_chart(self)]
        return tuple([*found, _attainment_chart(self)] if self.problem.slo else found)

    def held(self, strategy: str) -> list[Prediction]:
        """Return the points of a strategy that have latencies."""
        return [p for p in self.points if p.strategy == strategy and p.ttft is not None]


def curves(
    problem: Problem,
    strategies: str | Strategy | Sequence[str | Strategy],
    *,
    rates: Sequence[float] | None = None,
    concurrencies: Sequence[int] | None = None,
    points: int = 20,
    method: Method = "auto",
    progress: Progress | None = None,
) -> Curves:
    """Return mean and percentiles of TTFT, TPOT and E2EL, and the attainment, over the load.

    Parameters
    ----------
    strategies : one or several, "2m-tp4"
    rates : of the whole service [requests/s]; default: `points` rates from 3 to 97 % of what each
        strategy sustains, denser towards its end
    concurrencies : of a closed loop (workload with `max_concurrency`), instead of rates; default:
        powers of two up to `max_concurrency`
    method : "auto" simulates the points where a run disagrees with the formulas

    Raises as `predict`; InputError for rates of a closed loop or concurrencies of an open one.
    """
    if problem.workload.closed and rates is not None:
        raise InputError("a closed loop sets its own rate: give concurrencies, not rates")
    if not problem.workload.closed and concurrencies is not None:
        raise InputError("concurrencies belong to a closed loop: set max_concurrency")
    if not 2 <= points <= 1000:
        raise InputError(f"points = {points} must be between 2 and 1000")
    checked_method(method)
    several = [strategies] if isinstance(strategies, str | Strategy) else list(strategies)
    parsed = [Strategy.parse(s) for s in several]
    if not parsed:
        raise InputError("no strategy given: write one as 2m-tp4 or 1p1d-tp4")
    lowered = lower(problem)
    found: list[Prediction] = []
    for strategy in parsed:
        if problem.workload.closed:
            loads = _closed_loads(problem, strategy, concurrencies)
        else:
            loads = _open_loads(Service(lowered, strategy), rates, points, method)
        for service, rate in loads:
            if progress is not None:
                clients = service.lowered.problem.workload.max_concurrency
                progress(f"{strategy} at {f'{clients} clients' if rate is None else rate}")
            point = service.at(rate, method)
            trust = trust_in(problem, str(strategy), point.trust)
            found.append(replace(point, trust=trust))
    names = tuple(str(s) for s in parsed)
    return Curves(problem, names, tuple(found), lowered.mean_lengths[1])


Load = tuple[Service, float | None]


def _open_loads(
    service: Service, rates: Sequence[float] | None, points: int, method: Method
) -> list[Load]:
    """Return the rates to look at, ascending."""
    if rates is not None:
        problem = service.lowered.problem
        return [(service, rate) for rate in sorted(checked_rate(problem, r) for r in rates)]
    limit = stability_rate(service.system) if method == "analytic" else service.saturated
    return [(service, rate) for rate in rates_up_to(limit, points)]


def _closed_loads(
    problem: Problem, strategy: Strategy, concurrencies: Sequence[int] | None
) -> list[Load]:
    """Return the service with each number of clients, ascending."""
    workload = problem.workload
    most = workload.max_concurrency or 1
    counts = concurrencies or [*(2**i for i in range(most.bit_length()) if 2**i < most), most]
    loads: list[Load] = []
    for count in sorted(counts):
        changed = workload.scaled(max_concurrency=count)
        loads.append((Service(lower(problem.replaced(workload=changed)), strategy), None))
    return loads


def _latency_chart(found: Curves, metric: str) -> Chart:
    """Mean and percentiles of one strategy; of several, the objective's percentile or P90."""
    up = metric.upper()
    alone = len(found.strategies) == 1
    shown = STATISTICS if alone else ("p90",)
    series = []
    for name in found.strategies:
        held = found.held(name)
        x = _loads(found, held)
        for s in shown:
            y = tuple(milliseconds(getattr(getattr(p, metric), s)) for p in held)
            series.append(Series(s.replace("p", "P") if alone else name, x=x, y=y))
    figures = "Mean and percentiles" if alone else "P90"
    return Chart(
        key=f"{metric}-curve",
        title=f"{up} against the load" + (f" of {found.strategies[0]}" if alone else ""),
        summary=f"{figures} of {up} over the load.",
        kind="lines",
        x_label=_load_label(found),
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
        held = found.held(name)
        x = _loads(found, held)
        together = "all objectives" if alone else name
        series.append(Series(together, x=x, y=tuple(100 * (p.attainment or 0.0) for p in held)))
        for m in held[0].attainment_by if alone and held else ():
            y = tuple(100 * p.attainment_by[m] for p in held)
            series.append(Series(m.upper(), x=x, y=y))
    return Chart(
        key="attainment-curve",
        title="Attainment against the load",
        summary="Share of requests that meet the objectives, over the load.",
        kind="lines",
        x_label=_load_label(found),
        y_label="requests that meet objectives [%]",
        series=tuple(series),
        records=rows(found.records()),
    )


def _speed_chart(found: Curves) -> Chart:
    """What a GPU yields against what a user gets: the trade-off that the load settles."""
    series = []
    for name in found.strategies:
        speeds = [(u, g) for g, u in map(found._speeds, found.held(name)) if g and u]
        series.append(Series(name, x=tuple(u for u, _ in speeds), y=tuple(g for _, g in speeds)))
    if len(series) > 1:
        series.append(_speed_front(series))
    return Chart(
        key="speed-curve",
        title="Throughput against speed",
        summary="Output of a GPU against the speed of one answer, from low to high load.",
        kind="lines",
        x_label="output of one user, 1/TPOT [tokens/s]",
        y_label="output of one GPU [tokens/s]",
        series=tuple(series),
        records=rows(found.records()),
    )


def _speed_front(series: Sequence[Series]) -> Series:
    """Return the points, of whichever strategy, that no other beats in both speeds."""
    points = [(float(y), float(x)) for line in series for x, y in zip(line.x, line.y, strict=True)]
    kept = sorted((points[i] for i in pareto_front(points)), key=lambda point: point[1])
    return Series("front", x=tuple(u for _, u in kept), y=tuple(g for g, _ in kept), joined=True)


def _loads(found: Curves, held: Sequence[Prediction]) -> tuple[float, ...]:
    if found.problem.workload.closed:
        return tuple(float(p.problem.workload.max_concurrency or 0) for p in held)
    return tuple(p.request_rate for p in held)


def _load_label(found: Curves) -> str:
    closed = found.problem.workload.closed
    return "clients of the service" if closed else "request rate of the service [req/s]"
