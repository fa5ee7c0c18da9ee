"""A schedule of instances over a day, and what it was held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bestserve.results.document import plain
from bestserve.results.drawn import Drawn

if TYPE_CHECKING:
    from bestserve.specs.fleet import Fleet
    from bestserve.specs.problem import Problem

WHOLE = 24
"""Windows up to which a table shows each; of more, those without a change between them are one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledPool:
    """A pool of a schedule.

    name : in the windows' `instances`; role : "m" (collocated), "p" or "d"; strategy : one instance
    gpu, gpus : type and number for an instance; stream : whom it serves, "" for all
    rate_per_instance : the least of all windows [req/s]
    """

    name: str
    role: str
    strategy: str
    gpu: str
    gpus: int
    stream: str
    rate_per_instance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledStream:
    """What a window has for requests that share instances.

    name : "" for the only ones; request_rate, capacity [req/s]
    met : share of the simulated requests that met each objective, and "all" of them [1]
    error : standard error of these shares [1]; holds : whether they are at least as required, up to
        twice the error; None: not simulated
    """

    name: str
    request_rate: float
    capacity: float
    met: dict[str, float]
    error: float
    holds: bool | None

    @property
    def utilisation(self) -> float:
        """Rate over capacity [1]."""
        return self.request_rate / self.capacity if self.capacity > 0 else 1.0

    @property
    def least(self) -> float:
        """The smallest share that met an objective [1]."""
        return min(self.met.values(), default=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledWindow:
    """One window of a schedule.

    start, duration [s]; instances : by pool; gpus : in use; starts, stops : instances that come or
    go at its beginning; spares : instances beyond what the load needs
    cost : [USD], where prices are known; streams : what it has for whom
    """

    start: float
    duration: float
    instances: dict[str, int]
    gpus: int
    starts: int
    stops: int
    spares: int
    cost: float | None
    streams: tuple[ScheduledStream, ...]

    @property
    def request_rate(self) -> float:
        """Rate of all streams [req/s]."""
        return sum(s.request_rate for s in self.streams)

    @property
    def capacity(self) -> float:
        """What it can carry of all streams [req/s]."""
        return sum(s.capacity for s in self.streams)

    @property
    def fullest(self) -> ScheduledStream:
        """The stream that comes nearest to its capacity."""
        return max(self.streams, key=lambda s: s.utilisation)

    @property
    def worst(self) -> ScheduledStream:
        """The stream whose simulated requests met the objectives least."""
        return min(self.streams, key=lambda s: s.least)

    @property
    def holds(self) -> bool | None:
        """Whether all streams do; None: not simulated."""
        if any(s.holds is None for s in self.streams):
            return None
        return all(s.holds for s in self.streams)

    def clock(self) -> str:
        """Return the start as HH:MM, days before it."""
        return clock(self.start)


def clock(seconds: float) -> str:
    """Return a time as HH:MM, days before it.

    >>> clock(90_000)
    '1d 01:00'
    """
    days, rest = divmod(round(seconds / 60), 1440)
    return f"{f'{days}d ' if days else ''}{rest // 60:02d}:{rest % 60:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPolicy:
    """Another way to run the same load.

    cost : [USD], where prices are known; carried : share of the requests within capacity, and
    worst_window : in the worst window [1]; without_backlog : share that comes while nothing waits,
    if nobody is turned away [1]
    """

    name: str
    gpu_hours: float
    cost: float | None
    carried: float
    worst_window: float
    without_backlog: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastWorth:
    """What a forecast costs where its margin makes it carry `share` of the requests.

    median, p90 : of its relative errors [1]; margin : factor on its rates, None if none is enough
    gpu_hours : then; saved : share of them that knowing the load would save [1]
    """

    name: str
    share: float
    median: float
    p90: float
    margin: float | None
    gpu_hours: float | None
    saved: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """What instances that stop do with the requests they have, as simulated.

    kv : "stays" until they end there, or "moves"; longest [s]; gpu_hours : beyond the schedule's
    """

    kv: str
    longest: float
    gpu_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Drawn):
    """How many instances of each role serve a load, window by window.

    strategy : what an instance of each pool is (counts of one); objective : gpu-hours, money, load
    asked : the options; load : the rows of the CSV that was given
    gpu_hours : paid, starts included; cost [USD] : where prices are known; reserved : GPUs paid all
        day, by type; objective_value, bound : of the optimisation, in its unit (GPU-hours, USD, or
        the share of the requests that is carried); carried : share of the requests within capacity
    spare_gpu_hours : of instances that stand in for those that fail; availability : share of time
        in which as many are up as the load needs [1]
    requests : how many were simulated; met : share of all of them that met each objective, of the
        stream with the least [1]; held : whether that is as required, up to twice the error, None:
        not simulated; draining : what stopping took there; target : share of the requests that
        must meet each objective [1]
    policies, forecasts : others on the same load, and what a better forecast is worth
    seconds : that the optimisation took [s]
    """

    problem: Problem | None
    fleet: Fleet | None
    strategy: str
    objective: str
    asked: dict[str, Any]
    load: tuple[dict[str, str], ...] | None
    pools: tuple[ScheduledPool, ...]
    windows: tuple[ScheduledWindow, ...]
    gpu_hours: float
    cost: float | None
    reserved: dict[str, int]
    objective_value: float
    bound: float
    carried: float
    spare_gpu_hours: float
    availability: float | None
    requests: int
    met: dict[str, float]
    held: bool | None
    draining: Draining | None
    target: dict[str, float]
    policies: tuple[ComparedPolicy, ...]
    forecasts: tuple[ForecastWorth, ...]
    seconds: float

    def content(self) -> dict[str, Any]:
        """Return all fields as plain data; of the problem and the fleet the one that was asked."""
        found = {name: plain(getattr(self, name)) for name in type(self).__dataclass_fields__}
        return {k: v for k, v in found.items() if v is not None or k not in ("problem", "fleet")}

    @property
    def gap(self) -> float:
        """How far the objective may be from the best, as a share of it [1]."""
        if not self.objective_value > 0:
            return 0.0
        return abs(1 - self.bound / self.objective_value)

    def records(self) -> list[dict[str, Any]]:
        """Return a row a window."""
        return [self._row(w) for w in self.windows]

    def _row(self, w: ScheduledWindow) -> dict[str, Any]:
        row: dict[str, Any] = {"start": w.clock(), "request_rate": w.request_rate}
        row |= {f"{pool}_instances": n for pool, n in w.instances.items()}
        row |= {"gpus": w.gpus, "utilisation": w.fullest.utilisation}
        row |= {f"{name}_met": share for name, share in w.worst.met.items()}
        # what a narrow terminal has no room for comes last
        row |= {"holds": w.holds, "starts": w.starts, "stops": w.stops}
        if self.availability is not None:
            row["spares"] = w.spares
        if w.cost is not None:
            row["usd"] = w.cost
        row["capacity"] = w.capacity
        if len(self.windows[0].streams) > 1:
            row |= {f"{s.name}_rate": s.request_rate for s in w.streams}
            row["worst"] = w.worst.name
        return row

    def stretches(self) -> list[dict[str, Any]]:
        """Return a row for each time between changes: its highest rate and its worst window."""
        if len(self.windows) <= WHOLE:
            return self.records()
        groups: list[list[ScheduledWindow]] = []
        for w in self.windows:
            if groups and groups[-1][0].instances == w.instances:
                groups[-1].append(w)
            else:
                groups.append([w])
        rows = []
        for group in groups:
            row = self._row(max(group, key=lambda w: w.fullest.utilisation))
            worst = self._row(min(group, key=_order))
            row |= {k: v for k, v in worst.items() if k.endswith("_met") or k == "holds"}
            row |= {"start": group[0].clock(), "starts": group[0].starts, "stops": group[0].stops}
            if "usd" in row:
                row["usd"] = sum(w.cost or 0.0 for w in group)
            rows.append(row)
        return rows

    @property
    def worst(self) -> ScheduledWindow:
        """The window whose simulated requests met the objectives least; without, the fullest."""
        return min(self.windows, key=_order)

    def explain(self) -> str:
        """Return totals, the worst window and the other policies as text."""
        lines = [self._verdict()]
        if any(self.reserved.values()):
            paid = ", ".join(f"{n} {gpu}" for gpu, n in self.reserved.items() if n)
            lines.append(f"paid all day: {paid}; the rest when used")
        if self.availability is not None:
            lines.append(
                f"spares take {self.spare_gpu_hours:,.1f} of the GPU-hours; as many instances are "
                f"up as the load needs in {self.availability:.3%} of the time"
            )
        if self.draining is not None and self.draining.longest > 0:
            lines.append(
                f"instances that stop finish what they have in at most {self.draining.longest:,.0f}"
                f" s: {self.draining.gpu_hours:,.1f} GPU-hours more"
            )
        lines += [self._other(policy) for policy in self.policies]
        lines += [self._worth(f) for f in self.forecasts]
        return "\n".join([*lines, self._played()])

    def _verdict(self) -> str:
        money = "" if self.cost is None else f", {self.cost:,.2f} USD"
        line = f"{self.strategy}: {self.gpu_hours:,.1f} GPU-hours{money}"
        if self.objective == "load":
            return f"{line}; carries {self.carried:.2%} of the requests, at most {self.bound:.2%}"
        return f"{line}, within {self.gap:.2%} of the least possible"

    def _other(self, policy: ComparedPolicy) -> str:
        spent, own, unit = policy.gpu_hours, self.gpu_hours, "GPU-hours"
        if self.objective == "money" and policy.cost is not None and self.cost is not None:
            spent, own, unit = policy.cost, self.cost, "USD"
        more = spent / own - 1 if own > 0 else 0.0
        return (
            f"{policy.name}: {spent:,.1f} {unit} ({more:+.0%}), carries {policy.carried:.2%}, "
            f"in its worst window {policy.worst_window:.1%}"
        )

    @staticmethod
    def _worth(f: ForecastWorth) -> str:
        errors = f"off by {f.median:.1%} (median) and {f.p90:.1%} (P90)"
        if f.margin is None or f.gpu_hours is None or f.saved is None:
            return f"forecast {f.name}: {errors}; no margin makes it carry {f.share:.1%}"
        return (
            f"forecast {f.name}: {errors}; carries {f.share:.1%} at {f.margin:.2f} times its rates,"
            f" {f.gpu_hours:,.1f} GPU-hours; a perfect one saves {f.saved:.0%}"
        )

    def _played(self) -> str:
        w = self.worst
        if w.holds is None:
            return f"fullest window {w.clock()}: {w.fullest.utilisation:.0%} of its capacity"
        worst = w.worst
        whose = f" of {worst.name}" if worst.name else ""
        return (
            f"simulated {self.requests:,} requests: {_shares(self.met)} over all windows; worst "
            f"window {w.clock()}{whose} ({_shares(worst.met)} ± {worst.error:.1%}); "
        ) + self._held()

    def _held(self) -> str:
        """Return whether the simulation bears out what was planned."""
        missed = [w for w in self.windows if not w.holds]
        few = f"{len(missed)} of {len(self.windows)} windows"
        if self.asked["slo_over"] == "day":
            alone = f", though {few} would miss an objective alone" if missed else ""
            return (
                f"the day holds{alone}"
                if self.held
                else "the day misses: raise --headroom or --gpus"
            )
        if not missed:
            return "every window holds"
        return f"{few} miss an objective, the first at {missed[0].clock()}: raise --headroom" + (
            ", or ask for the day: --slo-over day" if self.held else ""
        )


def _shares(met: dict[str, float]) -> str:
    """Return shares by objective; those of a class behind its name."""
    told = []
    for name, share in met.items():
        kind, _, own = name.rpartition(".")
        told.append(f"{kind} {own.upper()} {share:.1%}".strip())
    return ", ".join(told)


def _order(window: ScheduledWindow) -> tuple[float, float]:
    """Return what sorts the worst window first."""
    if window.holds is None:
        return 0.0, -window.fullest.utilisation
    return window.worst.least, -window.fullest.utilisation
