"""The last step: prove that nothing is better by more than eps, or find what is.

With a plan of value z, ask for a plan better than z by more than eps. The relaxation's reduced
costs rule out most columns at once; the rest, with the objective cut off, is usually infeasible
at the root. Infeasible means: the gap is at most eps. A solution is a better plan; ask again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bestserve.solvers.allocation.highs import (
    LinearModel,
    Options,
    Outcome,
    Stop,
    Watch,
    solve,
)
from bestserve.solvers.allocation.programme import Programme

Floats = NDArray[np.float64]

MARGIN = 1e-6
"""Infeasibility is a floating-point statement: cut-offs are this much looser than asked."""

CONFIRM = 3.0
"""Least time for confirming a claim of infeasibility [s]."""


@dataclass(frozen=True, slots=True)
class Proof:
    """The best point, a lower bound of the minimum, and which step gave the bound."""

    point: Floats | None
    bound: float
    step: str
    nodes: int


def target(value: float, gap: float) -> float:
    """Return the minimised value that a plan better by more than `gap` would reach.

    The gap is relative to the larger of value and bound: for a maximum z (value −z), that of a
    bound z/(1 − gap); for a minimum z, that of a bound z·(1 − gap).
    """
    return value / (1 - gap) if value < 0 else value * (1 - gap)


def prove(
    programme: Programme,
    relaxed: Outcome,
    point: Floats | None,
    options: Options,
    stop: Stop,
    found: Callable[[Floats, float], None],
    watch: Watch | None = None,
) -> Proof:
    """Return a proof that `point` (or a better one) is within `options.gap` of the optimum."""
    model = programme.compiled.model
    bound, step, nodes = relaxed.bound, "relaxation", 0
    if relaxed.infeasible:
        return Proof(None, np.inf, "relaxation infeasible", 0)
    while not stop.now:
        value = float(model.cost @ point) if point is not None else np.inf
        if point is not None and within(value, bound, options.gap):
            break
        # No plan, one worth nothing, or no gap allowed: there is no cut-off to disprove.
        if point is None or abs(value) < 1e-12 or options.gap <= MARGIN:
            outcome = confirmed(model, options, stop, start=point, watch=watch)
            nodes += outcome.nodes
            if outcome.infeasible:
                return Proof(point, np.inf if point is None else bound, "infeasible", nodes)
            if outcome.point is not None and outcome.value < value:
                point = outcome.point
                found(point, outcome.value)
            if outcome.bound > bound:
                bound, step = outcome.bound, "optimal" if outcome.finished else "branch and bound"
            break
        cutoff = target(value, options.gap) + MARGIN * abs(value)
        # A column whose reduced cost lifts the relaxation above the cut-off is in no better plan.
        lifts = relaxed.bound + np.maximum(relaxed.reduced_costs, 0.0) > cutoff + MARGIN
        keep = np.flatnonzero(~(lifts & model.integer))
        part = model.restricted(keep).with_cutoff(cutoff)
        outcome = confirmed(part, replace(options, gap=options.gap / 2), stop, watch=watch)
        nodes += outcome.nodes
        if outcome.infeasible:
            bound, step = max(bound, min(cutoff, value)), "nothing better than the gap exists"
            break
        # What was cut off is above the cut-off, so the bound of the rest is valid up to it.
        proven = min(outcome.bound, cutoff)
        if proven > bound:
            bound, step = proven, "branch and bound"
        if outcome.point is None:
            break
        point = np.zeros(model.cost.size)
        point[keep] = outcome.point
        found(point, outcome.value)
    return Proof(point, bound, step, nodes)


def confirmed(
    model: LinearModel,
    options: Options,
    stop: Stop,
    *,
    start: Floats | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Solve; a claim of infeasibility counts only when a run without presolve does not refute it.

    The presolve of HiGHS has called feasible problems infeasible. The second run has twice the
    time of the first, at least CONFIRM seconds; without an answer by then the claim stands.
    """
    began = Stop()
    outcome = solve(model, options, start=start, stop=stop, watch=watch)
    if not outcome.infeasible:
        return outcome
    seconds = min(options.seconds, max(CONFIRM, 2 * began.elapsed))
    again = replace(options, presolve=False, seconds=seconds)
    second = solve(model, again, start=start, stop=stop, watch=watch)
    return outcome if second.point is None else second


def within(value: float, bound: float, gap: float) -> bool:
    """Return whether `value` is proven to be within `gap` of the minimum."""
    return value - bound <= gap * max(abs(value), abs(bound)) + 1e-12
