"""The last step: prove that nothing is better by more than eps, or find what is.

With a plan of value z, ask for a plan better than z by more than eps. Rounding cuts raise the
relaxation, its reduced costs rule out most columns, and the rest, with the objective cut off, is
often infeasible at once. Infeasible means: the gap is at most eps. A solution is a better plan;
ask again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.solvers.allocation.cuts import Covering, violated
from bestserve.solvers.allocation.highs import (
    LinearModel,
    LiveRelaxation,
    Options,
    Outcome,
    Stop,
    Watch,
    solve,
)
from bestserve.solvers.allocation.programme import Programme

Coverings = Callable[[float], tuple[Covering, ...]]
"""Covering rows that every point with a minimised value below the argument satisfies."""

MARGIN = 1e-6
"""Infeasibility is a floating-point statement: cut-offs are this much looser than asked."""

CONFIRM = 3.0
"""Least time for confirming a claim of infeasibility [s]."""

CUT_ROUNDS = 40
CUT_SHARE = 0.4
"""Share of the time left that rounds of cuts may take."""

CUT_PROGRESS = 0.002
"""Rounds of cuts end when three in a row close less than this share of the way to the cut-off."""

RELOAD = 0.3
"""Share of ruled-out columns above which the relaxation is loaded anew without them."""


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


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What is left of a programme below a cut-off.

    model : with `cuts` more rows, on the columns `keep` of the programme's model
    relaxed : its relaxation
    """

    model: LinearModel
    keep: Ints
    relaxed: Outcome
    cuts: int = 0

    def start(self, point: Floats) -> Floats:
        """Return a point of the whole model as one of this model."""
        return point[self.keep]

    def whole(self, point: Floats, size: int) -> Floats:
        """Return a point of this model as one of the whole model with `size` columns."""
        filled = np.zeros(size)
        filled[self.keep] = point
        return filled

    def positions(self, place: slice) -> Ints:
        """Return this model's column of each programme column; −1 where it was dropped [j]."""
        position = np.full(place.stop - place.start, -1)
        at = self.keep - place.start
        mine = (at >= 0) & (at < position.size)
        position[at[mine]] = np.flatnonzero(mine)
        return position

    def without(self, dropped: Bools) -> Narrowed:
        """Return this without some of its columns."""
        kept = np.flatnonzero(~dropped)
        best = self.relaxed
        assert best.point is not None
        shrunk = replace(best, point=best.point[kept], reduced_costs=best.reduced_costs[kept])
        return Narrowed(self.model.restricted(kept), self.keep[kept], shrunk, self.cuts)


def untouched(model: LinearModel, relaxed: Outcome) -> Narrowed:
    """Return a whole model as the start of narrowing."""
    return Narrowed(model, np.arange(model.cost.size), relaxed)


def ruled_out(narrowed: Narrowed, cutoff: float) -> Bools:
    """Return the columns whose reduced cost lifts the relaxation above the cut-off: no better
    plan has them."""
    lifted = narrowed.relaxed.bound + np.maximum(narrowed.relaxed.reduced_costs, 0.0)
    return (lifted > cutoff + MARGIN) & narrowed.model.integer


def narrow(
    narrowed: Narrowed,
    place: slice,
    cutoff: float,
    rows: tuple[Covering, ...],
    options: Options,
    stop: Stop,
    seconds: float,
) -> Narrowed:
    """Add rounding cuts and drop columns that reduced costs rule out, in rounds.

    Both hold for every point whose minimised value is at most `cutoff`. If the relaxation's bound
    reaches the cut-off, nothing better exists.
    """
    narrowed = narrowed.without(ruled_out(narrowed, cutoff))
    if not rows:
        return narrowed
    budget, idle = Stop(seconds), 0
    live = LiveRelaxation(narrowed.model, options)
    for _ in range(CUT_ROUNDS):
        if idle >= 3 or stop.now or budget.now:
            break
        point = narrowed.relaxed.point
        assert point is not None
        position = narrowed.positions(place)
        x = np.where(position >= 0, point[np.maximum(position, 0)], 0.0)
        cuts = violated(rows, x, position, narrowed.model.cost.size)
        if cuts is None:
            break
        outcome = live.add(cuts, min(stop.left, max(budget.left, 1.0)))
        model = live.model
        if outcome.infeasible:
            nothing = replace(outcome, bound=np.inf, point=point, reduced_costs=0.0 * point)
            return Narrowed(model, narrowed.keep, nothing, narrowed.cuts + len(cuts[1]))
        if outcome.point is None:
            break
        gained = outcome.bound - narrowed.relaxed.bound
        idle = idle + 1 if gained < CUT_PROGRESS * (cutoff - narrowed.relaxed.bound) else 0
        narrowed = Narrowed(model, narrowed.keep, outcome, narrowed.cuts + len(cuts[1]))
        if outcome.bound >= cutoff:
            break
        out = ruled_out(narrowed, cutoff)
        if out.sum() > RELOAD * out.size:
            narrowed = narrowed.without(out)
            live = LiveRelaxation(narrowed.model, options)
    return narrowed.without(ruled_out(narrowed, cutoff))


def prove(
    programme: Programme,
    narrowed: Narrowed,
    point: Floats | None,
    options: Options,
    stop: Stop,
    found: Callable[[Floats, float], None],
    watch: Watch | None = None,
    covering: Coverings | None = None,
) -> Proof:
    """Return a proof that `point` (or a better one) is within `options.gap` of the optimum.

    narrowed : the programme below the value of `point`, or untouched
    """
    model, place = programme.compiled.model, programme.compiled.columns["x"]
    bound, step, nodes = narrowed.relaxed.bound, "relaxation", 0
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
        rows = covering(cutoff) if covering is not None else ()
        # Narrowing below this cut-off must not outlive it: the next plan has another.
        inside = narrow(narrowed, place, cutoff, rows, options, stop, CUT_SHARE * stop.left)
        if inside.relaxed.bound > bound:
            bound, step = min(inside.relaxed.bound, cutoff), "rounding cuts"
        if inside.relaxed.bound >= cutoff:
            continue
        part = inside.model.with_cutoff(cutoff)
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
        point = inside.whole(outcome.point, model.cost.size)
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
