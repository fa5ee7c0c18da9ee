"""Find an allocation and prove how good it is.

Reduce the pools, cap them, relax, look for good plans in windows, and prove the rest away. The
result always says which step certified it. When time runs out or the user interrupts, the best
plan so far is returned with the bound known by then; without any plan the status says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter, process_time

import numpy as np

from bestserve.arrays import Floats
from bestserve.solvers.allocation import programme as formulation
from bestserve.solvers.allocation.caps import Capped, attainable, tighten
from bestserve.solvers.allocation.check import violations
from bestserve.solvers.allocation.columns import choices
from bestserve.solvers.allocation.cuts import Covering, coverings
from bestserve.solvers.allocation.found import Found, Listener, PlanStatus, Progress
from bestserve.solvers.allocation.heuristic import improve, scale_slopes
from bestserve.solvers.allocation.highs import Options, Outcome, Stop, Watch, solve
from bestserve.solvers.allocation.plan import Plan, assign
from bestserve.solvers.allocation.programme import Programme
from bestserve.solvers.allocation.proof import (
    MARGIN,
    Coverings,
    Narrowed,
    Proof,
    narrow,
    prove,
    untouched,
    within,
)
from bestserve.solvers.allocation.reduction import (
    Reduced,
    drop_dominated,
    from_tables,
    reduce_configurations,
)
from bestserve.solvers.allocation.tables import Requirements, Tables

SMALL = 1500
"""Columns up to which the exact programme is solved at once: windows only cost time there."""
WINDOWS = ((0.15, 1), (0.35, 4))
"""Windows before and after the first rounding cuts: share of the time, and how many without gain
end them."""

COMPACT = 4
"""Columns a pool up to which HiGHS searches by itself: with goodput linear in the instances, one
integer column a pool, it proves 1 % on 4,096 GPUs sooner than windows find a plan."""

DIRECT_SHARE, FIRST_SHARE = 0.7, 0.1
"""Share of the time for that; the rest is for the proof. Where columns are few, a short search
first gives the proof a plan close enough to cut off at: 24 s instead of 48 s on a hard fleet."""

CUTS_SHARE = 0.1
"""Share of the time for each round of cuts between windows; the rest is for the proof."""


SPARE_SHARE = 0.2
"""Share of the time, at most, for the cheapest of the plans that are worth as much."""

HELD, SMALLER = 1e-7, 1e-4
"""What the objective may lose by it, relative: rounding; and the weight of GPUs beside money."""


@dataclass(slots=True)
class _State:
    """What a search knows so far."""

    tables: Tables
    requirements: Requirements
    options: Options
    stop: Stop
    tell: Listener | None
    bound: float
    step: str = "none"
    nodes: int = 0
    pools: tuple[int, int] = (0, 0)
    columns: int = 0
    programme: Programme | None = None
    reduced: Reduced | None = None
    point: Floats | None = None
    infeasible: bool = False
    relaxed: Outcome | None = None

    def report(self, stage: str, value: float = np.inf, bound: float = -np.inf) -> None:
        """Tell the listener where the search stands; value and bound are of a running solve."""
        if self.tell is None:
            return
        objective, known = float("nan"), self.bound
        if self.programme is not None:
            if self.point is not None:
                value = min(value, float(self.programme.compiled.model.cost @ self.point))
            if abs(value) < 1e30:
                objective = self.programme.objective(value)
            if abs(bound) < 1e30:
                better = max if self.programme.sign > 0 else min
                known = better(known, self.programme.objective(bound))
        self.tell(
            Progress(stage=stage, seconds=self.stop.elapsed, objective=objective, bound=known)
        )


def search(
    tables: Tables,
    requirements: Requirements,
    options: Options | None = None,
    *,
    start: Plan | None = None,
    tell: Listener | None = None,
    stop: Stop | None = None,
    reduce: bool = True,
) -> Found:
    """Return the best allocation found and the proof of how good it is.

    options.gap is the relative gap at which the search ends (default 1 %), options.seconds its
    time limit. An interrupt from the keyboard keeps the best plan so far. With `reduce` False no
    pool is merged or dropped (for tests).
    """
    options = options or Options(gap=0.01)
    began, cpu = perf_counter(), process_time()
    stop = stop or Stop(options.seconds)
    worst = -np.inf if requirements.objective == "min_cost" else np.inf
    state = _State(tables, requirements, options, stop, tell, worst)
    try:
        _search(state, start, reduce)
        _spare(state)
    except KeyboardInterrupt:
        stop.event.set()
    plan = _best_plan(state, start)
    return _found(state, plan, perf_counter() - began, process_time() - cpu)


def _search(state: _State, start: Plan | None, reduce: bool) -> None:
    """Run the steps; what they find is kept in `state`."""
    tables, requirements, options = state.tables, state.requirements, state.options
    capped, reduced = _reduce(state, reduce)
    if not capped.feasible:
        state.infeasible, state.step = True, "relaxation infeasible"
        return
    state.bound, state.step = capped.bound, "linear bound"
    if state.stop.now:
        return
    columns = choices(reduced)
    scale = abs(capped.bound) if requirements.objective == "min_cost" and capped.bound else 1.0
    programme = formulation.state(
        tables, requirements, reduced, columns, capped.cap, cost_scale=scale
    )
    state.programme, state.reduced, state.columns = programme, reduced, columns.pool.size
    if start is not None:
        state.point = _locate(state, start)
    relaxed = solve(programme.compiled.model.relaxed(), state.options, stop=state.stop)
    if relaxed.point is None and not relaxed.infeasible:
        return
    state.relaxed = relaxed
    if relaxed.infeasible:
        state.infeasible, state.step = True, "relaxation infeasible"
        return
    _raise_bound(state, relaxed.bound, "relaxation")
    state.report("relaxation")
    narrowed = untouched(programme.compiled.model, relaxed)
    if columns.pool.size > max(SMALL, COMPACT * reduced.count):
        narrowed = _windows(state, narrowed, capped.cap)
    elif options.gap > MARGIN:
        _direct(state, DIRECT_SHARE if columns.pool.size > SMALL else FIRST_SHARE)
        if _within_gap(state):
            return

    def found(point: Floats, value: float) -> None:
        state.point = point
        state.report("proof")

    proof = prove(
        programme,
        narrowed,
        state.point,
        state.options,
        state.stop,
        found,
        _watch(state),
        _coverings(state),
    )
    _conclude(state, proof)


def _spare(state: _State) -> None:
    """Take, of all plans worth as much as the best point, the cheapest: nothing runs idle.

    GPUs of unknown price count as equally dear, and of plans that cost the same the smaller wins.
    """
    if state.programme is None or state.point is None or state.reduced is None:
        return
    if state.requirements.objective == "min_cost" or state.stop.now:
        return
    programme, reduced, supply = state.programme, state.reduced, state.tables.supply
    columns, model = programme.columns, programme.compiled.model
    gpus = (reduced.size[columns.pool] * columns.count).astype(np.float64)
    price = supply.price if np.all(supply.price > 0) else np.ones(supply.count)
    dear = price[reduced.gpu[columns.pool]] * gpus
    cost = np.zeros_like(model.cost)
    cost[programme.compiled.columns["x"]] = dear / dear.max() + SMALLER * gpus / gpus.max()
    value = float(model.cost @ state.point)
    held = replace(model.with_cutoff(value + HELD * abs(value)), cost=cost)
    seconds = min(state.stop.left, SPARE_SHARE * state.options.seconds)
    outcome = solve(
        held, replace(state.options, seconds=seconds), start=state.point, stop=state.stop
    )
    if outcome.point is not None:
        state.point = outcome.point
    state.report("fewest GPUs")


def _direct(state: _State, share: float) -> None:
    """Let HiGHS search as it is for a share of the time."""
    assert state.programme is not None
    model, options = state.programme.compiled.model, state.options
    limited = replace(options, seconds=share * min(options.seconds, state.stop.left))
    outcome = solve(model, limited, start=state.point, stop=state.stop, watch=_watch(state))
    state.nodes += outcome.nodes
    if outcome.point is not None:
        state.point = outcome.point
    if not outcome.infeasible:
        _raise_bound(state, outcome.bound, "branch and bound")
    state.report("branch and bound")


def _within_gap(state: _State) -> bool:
    """Return whether the best point is known to be within the gap asked for."""
    if state.point is None or state.programme is None:
        return False
    value = float(state.programme.compiled.model.cost @ state.point)
    return within(value, state.programme.minimised(state.bound), state.options.gap)


def _reduce(state: _State, reduce: bool) -> tuple[Capped, Reduced]:
    """Merge, cap and drop pools."""
    tables, requirements = state.tables, state.requirements
    reduced = from_tables(tables, requirements)
    before = reduced.count
    if reduced.count == 0 or np.any(attainable(tables, reduced) <= 0):
        state.pools = (before, reduced.count)
        if requirements.objective != "max_goodput" or reduced.count == 0:
            return Capped(reduced, tables.demand.rate, np.nan, False), reduced
    if reduce:
        reduced = reduce_configurations(reduced, tables, requirements)
    capped = tighten(tables, requirements, reduced, state.options, state.stop)
    reduced = capped.reduced
    if reduce and capped.feasible:
        reduced = drop_dominated(reduced, tables, requirements)
    state.pools = (before, reduced.count)
    return capped, reduced


def _raise_bound(state: _State, minimised: float, step: str) -> None:
    """Keep the tighter of the known bound and a new one."""
    assert state.programme is not None
    if not np.isfinite(minimised):
        return
    bound = state.programme.objective(minimised)
    better = bound > state.bound if state.programme.sign > 0 else bound < state.bound
    if better or not np.isfinite(state.bound):
        state.bound, state.step = bound, step


def _windows(state: _State, narrowed: Narrowed, cap: Floats) -> Narrowed:
    """Look for good plans near the points of slope scaling; return what is left to search.

    After the first plans, rounding cuts that every better plan satisfies tighten the windows.
    """
    programme, reduced = state.programme, state.reduced
    assert programme is not None
    assert reduced is not None
    points = scale_slopes(state.tables, state.requirements, reduced, cap, state.options, state.stop)
    state.report("slope scaling")

    def found(point: Floats, value: float) -> None:
        state.point = point
        state.report("windows")

    def good_enough(value: float) -> bool:
        return bool(np.isfinite(value)) and within(value, narrowed.relaxed.bound, state.options.gap)

    place, covering = programme.compiled.columns["x"], _coverings(state)
    whole = min(state.stop.left, 60.0)
    for share, patience in WINDOWS:
        state.point = improve(
            programme,
            narrowed,
            reduced,
            points,
            state.point,
            state.options,
            state.stop,
            share * whole,
            found,
            good_enough,
            patience,
        )
        if state.point is None or state.stop.now:
            break
        value = float(programme.compiled.model.cost @ state.point)
        if within(value, narrowed.relaxed.bound, state.options.gap):
            break
        cutoff = value + MARGIN * abs(value)
        rows = covering(cutoff) if covering is not None else ()
        narrowed = narrow(
            narrowed, place, cutoff, rows, state.options, state.stop, CUTS_SHARE * whole
        )
        _raise_bound(state, min(narrowed.relaxed.bound, value), "rounding cuts")
        state.report("rounding cuts")
    return narrowed


def _watch(state: _State) -> Watch | None:
    """Return what HiGHS tells its progress to."""
    if state.tell is None:
        return None

    def watch(value: float, bound: float) -> None:
        state.report("branch and bound", value, bound)

    return watch


def _coverings(state: _State) -> Coverings | None:
    """Return the covering rows of plans better than a cut-off; none if classes may go unserved."""
    programme, reduced, tables = state.programme, state.reduced, state.tables
    assert programme is not None
    assert reduced is not None
    if state.requirements.objective == "max_goodput":
        return None

    def rows(cutoff: float) -> tuple[Covering, ...]:
        factor = 1.0
        if state.requirements.objective == "max_headroom":
            factor = programme.objective(cutoff)
        return coverings(tables, reduced, programme.columns, tables.demand.rate * factor)

    return rows


def _conclude(state: _State, proof: Proof) -> None:
    """Keep what the proof gave."""
    state.nodes += proof.nodes
    if proof.point is not None:
        state.point = proof.point
    if state.point is None and proof.bound == np.inf:
        state.infeasible, state.step = True, proof.step
        return
    _raise_bound(state, proof.bound, proof.step)


def _locate(state: _State, plan: Plan) -> Floats | None:
    """Return `plan` as a start for HiGHS, moved to the pools that replaced its own.

    The start gives the instance counts; HiGHS completes the flows. None if a pool has no
    replacement of equal worth.
    """
    assert state.programme is not None
    assert state.reduced is not None
    reduced, columns = state.reduced, state.programme.columns
    pools = state.tables.pools
    count = np.zeros(reduced.count, dtype=np.int64)
    for p, k in zip(plan.pool.tolist(), plan.count.tolist(), strict=True):
        same = (
            (reduced.gpu == pools.gpu[p])
            & (reduced.role == pools.role[p])
            & (reduced.recipe == pools.recipe[p])
            & (pools.size[p] % reduced.size == 0)
        )
        rows = np.flatnonzero(same)
        if rows.size == 0:
            return None
        exact = rows[reduced.size[rows] == pools.size[p]]
        row = exact[0] if exact.size else rows[np.argmax(reduced.size[rows])]
        count[row] += k * int(pools.size[p] // reduced.size[row])
    count = np.minimum(count, reduced.most)
    wanted = count[columns.pool]
    exactly = (wanted == columns.count) & (wanted > 0)
    return _complete(state, np.where(columns.repeated, wanted, exactly).astype(np.float64))


def _complete(state: _State, taken: Floats) -> Floats | None:
    """Return the best point in which every column is taken as often as `taken` says [j]."""
    assert state.programme is not None
    model = state.programme.compiled.model
    place = state.programme.compiled.columns["x"]
    low, high = model.low.copy(), model.high.copy()
    low[place] = high[place] = taken
    outcome = solve(replace(model, low=low, high=high), replace(state.options, gap=0.0))
    return outcome.point


def _best_plan(state: _State, start: Plan | None) -> Plan | None:
    """Return the plan of the best point on the exact tables, or the start if that is better."""
    best = start if start is not None and _valid(state, start) else None
    if state.point is None or state.programme is None or state.reduced is None:
        return best
    reduced, columns = state.reduced, state.programme.columns
    place = state.programme.compiled.columns["x"]
    chosen, count = columns.instances(state.point[place])
    source = reduced.source[columns.pool[chosen], count]
    plan = assign(state.tables, state.requirements, source, count)
    if plan is None or not _valid(state, plan):
        untrimmed = assign(state.tables, state.requirements, source, count, trim=False)
        plan = untrimmed if untrimmed is not None and _valid(state, untrimmed) else None
    if plan is None:
        return best
    if best is None:
        return plan
    sign = 1.0 if state.requirements.objective == "min_cost" else -1.0
    return best if sign * best.objective < sign * plan.objective else plan


def _valid(state: _State, plan: Plan) -> bool:
    """Return whether the independent checker accepts the plan."""
    return not violations(state.tables, state.requirements, plan)


def _found(state: _State, plan: Plan | None, seconds: float, cpu: float) -> Found:
    """Return the result of the search."""
    bound, gap = state.bound, np.inf
    if plan is not None and plan.objective <= 0:
        # Serving nothing is no plan; where nothing better exists, that is a proof.
        plan, state.infeasible = None, bound <= 1e-9
    if plan is not None:
        # Rounding of the bound must not put it on the wrong side of a plan that exists.
        minimising = state.requirements.objective == "min_cost"
        bound = min(bound, plan.objective) if minimising else max(bound, plan.objective)
        largest = max(abs(bound), abs(plan.objective))
        gap = abs(bound - plan.objective) / largest if largest else 0.0
    if plan is not None:
        done = gap <= state.options.gap * (1 + 1e-3) + 2e-6
        status = PlanStatus.WITHIN_GAP if done else PlanStatus.STOPPED
    elif state.infeasible:
        status = PlanStatus.INFEASIBLE
    else:
        status = PlanStatus.NO_PLAN
    return Found(
        status=status,
        plan=plan,
        bound=bound,
        gap=gap,
        step=state.step,
        seconds=seconds,
        cpu_seconds=cpu,
        nodes=state.nodes,
        pools=state.pools,
        columns=state.columns,
        shadow_prices=_shadow_prices(state),
        interrupted=state.stop.event.is_set(),
    )


def _shadow_prices(state: _State) -> tuple[tuple[str, str, float], ...]:
    """Return (constraint, row, what one more unit brings) of the relaxation: indicative only."""
    programme, relaxed = state.programme, state.relaxed
    if programme is None or relaxed is None or relaxed.duals.size == 0:
        return ()
    prices = []
    for name in ("GPUs", "GPU budget", "cost budget", "power budget", "configurations"):
        place = programme.algebra.row_slice(name)
        block = next((b for b in programme.algebra.rows if b.name == name), None)
        if block is None:
            continue
        for label, dual in zip(block.labels, relaxed.duals[place], strict=True):
            prices.append((name, label, float(programme.sign * programme.scale * dual)))
    return tuple(prices)
