"""Where a strategy stands: its goodput, what binds there, and latencies around it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bestserve.answers.evaluate import evaluator, goodput
from bestserve.answers.goodput import court_of, verdict
from bestserve.errors import InfeasibleError
from bestserve.lowering import Lowered, lower
from bestserve.models.attainment import attainment, margin, marginal_attainment
from bestserve.models.binding import Binding
from bestserve.models.goodput import NEARLY_SATURATED, Goodput
from bestserve.models.lane_arrivals import uncovered
from bestserve.models.latencies import Latencies
from bestserve.models.latency import stability_rate
from bestserve.models.status import LatencyStatus
from bestserve.models.system import System, Target
from bestserve.solvers.ranking import checked_problem
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy


@dataclass(frozen=True, slots=True)
class Observer:
    """How latencies and limits of a system are found: by formulas or by simulation.

    latencies : (system, rate [req/s]) → Latencies; limit : system → saturated rate [req/s]
    finite : whether latencies beyond the limit are finite, as those of a finite run are
    """

    latencies: Callable[[System, float], Latencies]
    limit: Callable[[System], float]
    finite: bool = False


AT_ONCE = Observer(lambda system, rate: evaluator(system)(rate), stability_rate)
"""The formulas where they know the arrivals, single runs where not."""


@dataclass(frozen=True, slots=True)
class Operating:
    """A strategy at its goodput.

    method : "analytic" where the goodput is the formulas', "simulated" where runs show another
    """

    lowered: Lowered
    strategy: Strategy
    system: System
    target: Target
    found: Goodput
    method: str = "analytic"

    @property
    def rate(self) -> float:
        """The goodput [req/s]."""
        return self.found.rate


def operate(
    problem: Problem | Lowered, strategy: str | Strategy, method: str = "analytic"
) -> Operating:
    """Return the goodput of a strategy, by default the formulas' if there are, and what led to it.

    method : as of `bestserve.goodput`

    Raises InputError (no objectives, closed loop), InfeasibleError (no goodput; why).
    """
    lowered = problem if isinstance(problem, Lowered) else lower(checked_problem(problem))
    parsed = Strategy.parse(strategy)
    system, court = lowered.system(parsed), court_of(lowered)
    known = verdict(system, court, "auto" if uncovered(system) else method)
    found = known.found
    if found.rate <= 0:
        raise InfeasibleError(f"{parsed}: {found.detail or found.status}")
    return Operating(lowered, parsed, system, court.target, found, known.method)


def room(
    observer: Observer, system: System, target: Target, binding: Binding, rate: float
) -> float:
    """Return how far the binding objective is from being missed at a rate; 0 at the goodput.

    Marginal objectives: ln(threshold / percentile); joint ones and those on tokens: attainment less
    its target; stability: ln(limit / rate). −inf where the queue is unstable.
    """
    if binding is Binding.STABILITY:
        return math.log(NEARLY_SATURATED * observer.limit(system) / rate)
    found = observer.latencies(system, rate)
    return objective_room(found, target, binding)


def objective_room(found: Latencies, target: Target, binding: Binding) -> float:
    """Return `room` of one objective from latencies already found."""
    if found.status is not LatencyStatus.OK:
        return -math.inf
    if binding is Binding.JOINT:
        return attainment(found, target) - target.attainment
    name = binding.key
    if target.counted(name):
        return marginal_attainment(found, target)[name] - target.required(name)
    value = getattr(found, name).quantile(getattr(target, f"{name}_percentile"))
    return math.log(getattr(target, name) / value) if value > 0 else math.inf


def rooms(found: Latencies, target: Target) -> dict[str, float]:
    """Return the room of every stated objective [1]; positive: met with that much to spare."""
    if target.joint:
        return {"joint": objective_room(found, target, Binding.JOINT)}
    return {name: objective_room(found, target, Binding.of(name)) for name in target.asked}


NEAR_TOLERANCE = 3e-3
"""Relative error of `goodput_near`: well below what any comparison here resolves."""


def goodput_near(system: System, target: Target, guess: float, steepness: float = 1.0) -> float:
    """Return the goodput [req/s] from a guess, in two or three looks instead of ten.

    Secant in (ln rate, least room), `steepness` the slope to begin with; a full search where the
    guess leads nowhere. 0 if a lone request misses the target.
    """
    evaluate, limit = evaluator(system), stability_rate(system)
    if not limit > 0:
        return 0.0
    top = math.log(NEARLY_SATURATED * limit)
    x, low, high = min(math.log(guess), top), -math.inf, math.inf
    slope = -max(steepness, 0.05)
    last: tuple[float, float] | None = None
    for _ in range(6):
        met = margin(evaluate(math.exp(x)), target)[0]
        low, high = (x, high) if met >= 0 else (low, x)
        if x >= top and met >= 0:
            return math.exp(top)
        if not math.isfinite(met):
            step = -0.2
        else:
            if last is not None and (met - last[1]) * (x - last[0]) < 0:
                slope = (met - last[1]) / (x - last[0])
            last = (x, met)
            step = max(min(-met / slope, 0.7), -0.7)
        if abs(step) < NEAR_TOLERANCE:
            return math.exp(min(x + step, top))
        following = min(x + step, top)
        x = following if low < following < high else (max(low, x - 1) + min(high, x + 1)) / 2
    return goodput(system, target)
