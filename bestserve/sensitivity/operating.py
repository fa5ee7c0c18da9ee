"""Where a strategy stands: its goodput, what binds there, and latencies around it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bestserve.errors import InfeasibleError
from bestserve.lowering import Lowered, lower
from bestserve.models.goodput import NEARLY_SATURATED, Binding, Goodput, goodput
from bestserve.models.latency import Latencies, evaluator, stability_rate
from bestserve.models.status import Status
from bestserve.models.system import System, Target
from bestserve.solvers.search import checked_problem
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

METRIC_NAMES = ("ttft", "tpot", "e2el")


@dataclass(frozen=True, slots=True)
class Observer:
    """How latencies and limits of a system are found: by formulas or by simulation.

    latencies : (system, rate [req/s]) → Latencies; limit : system → saturated rate [req/s]
    """

    latencies: Callable[[System, float], Latencies]
    limit: Callable[[System], float]


ANALYTIC = Observer(lambda system, rate: evaluator(system)(rate), stability_rate)


@dataclass(frozen=True, slots=True)
class Operating:
    """A strategy at its goodput."""

    lowered: Lowered
    strategy: Strategy
    system: System
    target: Target
    found: Goodput

    @property
    def rate(self) -> float:
        """The goodput [req/s]."""
        return self.found.rate


def operate(problem: Problem | Lowered, strategy: str | Strategy) -> Operating:
    """Return the analytic goodput of a strategy and all that led to it.

    Raises InputError (no objectives, closed loop), InfeasibleError (no goodput; why).
    """
    lowered = problem if isinstance(problem, Lowered) else lower(checked_problem(problem))
    parsed = Strategy.parse(strategy)
    slo = lowered.problem.slo
    assert slo is not None
    system = lowered.system(parsed)
    found = goodput(system, slo.target())
    if found.rate <= 0:
        raise InfeasibleError(f"{parsed}: {found.detail or found.status}")
    return Operating(lowered, parsed, system, slo.target(), found)


def room(
    observer: Observer, system: System, target: Target, binding: Binding, rate: float
) -> float:
    """Return how far the binding objective is from being missed at a rate; 0 at the goodput.

    Marginal objectives: ln(threshold / percentile); joint: attainment less its target; stability:
    ln(limit / rate). −inf where the queue is unstable.
    """
    if binding == "stability":
        return math.log(NEARLY_SATURATED * observer.limit(system) / rate)
    found = observer.latencies(system, rate)
    return objective_room(found, target, binding)


def objective_room(found: Latencies, target: Target, binding: Binding) -> float:
    """Return `room` of one objective from latencies already found."""
    from bestserve.models.goodput import attainment

    if found.status is not Status.OK:
        return -math.inf
    if binding == "joint":
        return attainment(found, target) - target.attainment
    value = getattr(found, binding).quantile(getattr(target, f"{binding}_percentile"))
    return math.log(getattr(target, binding) / value) if value > 0 else math.inf


def rooms(found: Latencies, target: Target) -> dict[str, float]:
    """Return the room of every stated objective [1]; positive: met with that much to spare."""
    if target.joint:
        return {"joint": objective_room(found, target, "joint")}
    return {
        name: objective_room(found, target, name)  # type: ignore[arg-type]
        for name in METRIC_NAMES
        if getattr(target, name) is not None
    }
