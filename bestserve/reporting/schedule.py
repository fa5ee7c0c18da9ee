"""Pictures of a schedule: load, instances by role, cost and attainment over the day."""

from __future__ import annotations

from collections.abc import Sequence

from bestserve.reporting.chart import Chart, Limit, Series, rows
from bestserve.reporting.terminal import Strip, strips
from bestserve.results.schedule import Schedule, ScheduledStream, clock

HOURS = "hours"


def schedule_charts(found: Schedule) -> tuple[Chart, ...]:
    """Return the pictures: load, instances, cost, and what the simulated requests met."""
    charts = [_load(found), _instances(found), _cost(found)]
    if found.windows[0].holds is not None:
        charts.append(_attainment(found))
    return tuple(charts)


def _steps(found: Schedule, name: str, values: Sequence[float]) -> Series:
    """Return a series that keeps each value until the next window; the last one to its end."""
    last = found.windows[-1]
    hours = [w.start / 3600 for w in found.windows] + [(last.start + last.duration) / 3600]
    return Series(name, tuple(hours), (*values, values[-1]))


def _load(found: Schedule) -> Chart:
    peak = max(found.windows, key=lambda w: w.request_rate)
    return Chart(
        key="load",
        title="Load and capacity",
        summary=f"The load peaks at {peak.clock()} with {peak.request_rate:.4g} req/s; the "
        f"schedule carries {found.carried:.2%} of the requests.",
        kind="steps",
        x_label=HOURS,
        y_label="requests/s",
        series=(
            _steps(found, "load", [w.request_rate for w in found.windows]),
            _steps(found, "capacity", [w.capacity for w in found.windows]),
        ),
        records=rows(found.records()),
    )


def _instances(found: Schedule) -> Chart:
    most = max(w.gpus for w in found.windows)
    least = min(w.gpus for w in found.windows)
    changes = sum(w.starts + w.stops for w in found.windows)
    return Chart(
        key="instances",
        title="Instances",
        summary=f"Between {least} and {most} GPUs, {changes} starts and stops.",
        kind="steps",
        x_label=HOURS,
        y_label="instances",
        series=tuple(
            _steps(found, pool.name, [float(w.instances[pool.name]) for w in found.windows])
            for pool in found.pools
        ),
        records=rows([{"start": w.clock(), **w.instances, "gpus": w.gpus} for w in found.windows]),
    )


def _cost(found: Schedule) -> Chart:
    """Return what has been spent by each hour, beside the static fleet's."""
    known = found.cost is not None
    spent = [0.0]
    for w in found.windows:
        spent.append(spent[-1] + (w.cost or 0.0 if known else w.gpus * w.duration / 3600))
    last = found.windows[-1]
    hours = tuple([w.start / 3600 for w in found.windows] + [(last.start + last.duration) / 3600])
    unit = "USD" if known else "GPU-hours"
    series = [Series("schedule", hours, tuple(spent))]
    static = next((p for p in found.policies if p.name.startswith("static")), None)
    summary = f"{spent[-1]:,.1f} {unit} in all"
    if static is not None:
        total = static.cost if known else static.gpu_hours
        assert total is not None
        span = hours[-1] - hours[0]
        series.append(Series("static", hours, tuple(total * (h - hours[0]) / span for h in hours)))
        summary += f", a fleet that never changes {total:,.1f}"
    return Chart(
        key="cost",
        title="Cost",
        summary=f"{summary}.",
        kind="lines",
        x_label=HOURS,
        y_label=unit,
        series=tuple(series),
        records=rows([{"hours": h, "spent": s} for h, s in zip(hours, spent, strict=True)]),
    )


def _attainment(found: Schedule) -> Chart:
    worst = found.worst
    names = list(found.windows[0].worst.met)
    return Chart(
        key="attainment",
        title="Requests within objectives",
        summary=f"The worst window is {worst.clock()}: {worst.worst.least:.1%} of its simulated "
        "requests met an objective.",
        kind="steps",
        x_label=HOURS,
        y_label="share of requests",
        series=tuple(
            _steps(found, name.upper(), [_met(w.streams, name) for w in found.windows])
            for name in names
        ),
        limits=tuple(
            Limit(share, f"{share:.0%} required") for share in sorted(set(found.target.values()))
        ),
        records=rows(
            [{"start": w.clock(), **{n: _met(w.streams, n) for n in names}} for w in found.windows]
        ),
    )


def _met(streams: Sequence[ScheduledStream], name: str) -> float:
    """Return the smallest share of all streams that met an objective."""
    return min(float(s.met.get(name, 1.0)) for s in streams)


def schedule_strips(found: Schedule, width: int = 80) -> str:
    """Return load, instances, cost and attainment as rows of blocks for a terminal."""
    w = found.windows
    rates = [x.request_rate for x in w]
    lines = [Strip("load [req/s]", tuple(rates), 0.0, max(rates))]
    for pool in found.pools:
        counts = tuple(float(x.instances[pool.name]) for x in w)
        lines.append(Strip(f"{pool.name[:24]}", counts, 0.0, max(*counts, 1.0)))
    if found.cost is None:
        lines.append(Strip("GPUs", tuple(float(x.gpus) for x in w), 0.0, max(x.gpus for x in w)))
    else:
        hourly = tuple((x.cost or 0.0) * 3600 / x.duration for x in w)
        lines.append(Strip("USD/h", hourly, 0.0, max(hourly)))
    if w[0].holds is not None:
        met = tuple(100 * x.worst.least for x in w)
        lines.append(Strip("met [%]", met, min(*met, 90.0), 100.0))
    spans = [x.duration for x in w]
    return strips(lines, spans, (w[0].clock(), clock(w[-1].start + w[-1].duration)), width)
