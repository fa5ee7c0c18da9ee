"""A schedule of instances over a day, and what it was held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bestserve.results.document import Document, plain

if TYPE_CHECKING:
    from bestserve.specs.problem import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledWindow:
    """One window of a schedule.

    start, duration [s]; request_rate, capacity [req/s]; instances : by role
    gpus : in use; starts, stops : instances that come or go at its beginning
    met : share of its simulated requests that met each objective, and "all" of them [1]
    error : standard error of these shares [1]; holds : whether they are at least as required, up to
        twice the error; None: not simulated
    """

    start: float
    duration: float
    request_rate: float
    instances: dict[str, int]
    gpus: int
    capacity: float
    starts: int
    stops: int
    met: dict[str, float]
    error: float
    holds: bool | None

    @property
    def utilisation(self) -> float:
        """Rate over capacity [1]."""
        return self.request_rate / self.capacity

    def clock(self) -> str:
        """Return the start as HH:MM, days before it."""
        minutes = round(self.start / 60)
        days, rest = divmod(minutes, 1440)
        return f"{f'{days}d ' if days else ''}{rest // 60:02d}:{rest % 60:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPolicy:
    """Another way to run the same load: GPU-hours, share carried, share of the worst window [1]."""

    name: str
    gpu_hours: float
    carried: float
    worst_window: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Document):
    """How many instances of each role serve a load, window by window.

    strategy : what an instance of each pool is (counts of one); objective : gpu-hours, money, load
    gpu_hours : paid, starts included; cost [USD] : where prices are known; reserved : GPUs paid all
        day; objective_value, bound : of the optimisation, in its unit (GPU-hours, USD, or the share
        of the requests that is carried); carried : share of the requests within capacity [1]
    policies : others on the same load
    """

    problem: Problem
    strategy: str
    objective: str
    windows: tuple[ScheduledWindow, ...]
    gpu_hours: float
    cost: float | None
    reserved: int
    objective_value: float
    bound: float
    carried: float
    policies: tuple[ComparedPolicy, ...]

    def content(self) -> dict[str, Any]:
        """Return all fields as plain data."""
        return {name: plain(getattr(self, name)) for name in type(self).__dataclass_fields__}

    def records(self) -> list[dict[str, Any]]:
        """Return a row a window."""
        rows = []
        for w in self.windows:
            row = {"start": w.clock(), "request_rate": w.request_rate}
            row |= {f"{role}_instances": n for role, n in w.instances.items()}
            row |= {"gpus": w.gpus, "capacity": w.capacity, "utilisation": w.utilisation}
            row |= {"starts": w.starts, "stops": w.stops}
            row |= {f"{name}_met": share for name, share in w.met.items()}
            rows.append(row | {"holds": w.holds})
        return rows

    @property
    def worst(self) -> ScheduledWindow:
        """The window whose simulated requests met the objectives least; without, the fullest."""
        if self.windows[0].holds is None:
            return max(self.windows, key=lambda w: w.utilisation)
        return min(self.windows, key=lambda w: min(w.met.values(), default=1.0))

    def explain(self) -> str:
        """Return totals, the worst window and the other policies as text."""
        money = "" if self.cost is None else f", {self.cost:,.2f} USD"
        lines = [f"{self.strategy}: {self.gpu_hours:,.1f} GPU-hours{money}"]
        if self.objective == "load":
            lines[0] += f"; carries {self.carried:.2%} of the requests, at most {self.bound:.2%}"
        else:
            gap = 1 - self.bound / self.objective_value if self.objective_value > 0 else 0.0
            lines[0] += f", within {gap:.2%} of the least possible"
        if self.reserved:
            lines.append(f"{self.reserved} GPUs are worth paying for all day, the rest when used")
        for policy in self.policies:
            more = policy.gpu_hours / self.gpu_hours - 1 if self.gpu_hours > 0 else 0.0
            lines.append(
                f"{policy.name}: {policy.gpu_hours:,.1f} GPU-hours ({more:+.0%}), carries "
                f"{policy.carried:.2%}, in its worst window {policy.worst_window:.1%}"
            )
        w = self.worst
        if w.holds is None:
            lines.append(f"fullest window {w.clock()}: {w.utilisation:.0%} of its capacity")
            return "\n".join(lines)
        missed = [x for x in self.windows if not x.holds]
        met = ", ".join(f"{name.upper()} {share:.1%}" for name, share in w.met.items())
        lines.append(
            f"simulated: worst window {w.clock()} ({met} ± {w.error:.1%}); "
            + (
                "every window holds"
                if not missed
                else f"{len(missed)} of {len(self.windows)} windows miss an objective, the first "
                f"at {missed[0].clock()}: raise --headroom"
            )
        )
        return "\n".join(lines)
