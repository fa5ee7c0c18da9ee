"""The mixed-integer programme of a schedule: cheapest for a load, or most of it on given GPUs.

n instances a pool and window, u of them started and v stopped with it; m of the n are up as often
as required; option o carries x. The day repeats itself.

    minimise  the bill     subject to   n − n₋₁ = u − v,   x_o ≤ capacity·m of each of its pools
                                        Σ x_o ≥ (1 + headroom)·rate of each stream,
                                        or Σ requests·share(n) ≥ share asked for, over the day
    maximise  Σ W·y        subject to   Σ x_o = y ≤ rate,  m − u·start/W instead of m

and in both: Σ of u within the least stay ≤ n, Σ (u + v) ≤ changes allowed, GPUs of a type at once,
those that start beside those that still run (the second problem starts on what stops). Where a
stream has one option, m is known beforehand, and without coupling rows the first is a network.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InfeasibleError
from bestserve.fleet.schedule.accounts import bill, broken, free_of_reserves, overlaps
from bestserve.fleet.schedule.failures import totals
from bestserve.fleet.schedule.patterns import chosen
from bestserve.fleet.schedule.terms import Daily, Terms
from bestserve.host.stdout import nothing_printed

GAP = 1e-3
SECONDS = 20.0
"""Relative gap at which the search for a schedule ends, and the longest it takes [s]."""

LARGE, CLOSE = 400, 0.02
"""Pools times windows beyond which the windows' cheapest patterns are taken where they are this
near to their bound: a programme of that size is farther from it when its time is over."""

SAME = 1e-6
"""Of schedules that carry as much, up to this share of the load, the cheapest is taken [1]."""


@dataclass(frozen=True, slots=True)
class Planned:
    """Instances by pool and window [pool, window], the objective and a bound on it.

    objective, bound : GPU-hours, USD, or the share of the requests that is carried; reserved : GPUs
    paid all day, by type
    """

    counts: Ints
    objective: float
    bound: float
    reserved: Ints

    @property
    def gap(self) -> float:
        """How far the objective may be from the best, as a share of it [1]."""
        if not self.objective > 0:
            return 0.0
        return abs(1.0 - self.bound / self.objective)


@dataclass(frozen=True, slots=True)
class _Variables:
    """Instances, those that are up, started, stopped [pool, window]; what options carry."""

    n: Any
    up: Any
    started: Any
    stopped: Any
    carried: Any

    @property
    def before(self) -> Any:
        """Instances in the window before; the first follows the last."""
        import cvxpy as cp

        return cp.hstack([self.n[:, -1:], self.n[:, :-1]])


def cheapest(terms: Terms, *, constant: bool = False) -> Planned:
    """Return the cheapest schedule in which every window carries its rate, with a bound.

    constant : the same instances all day

    Raises InfeasibleError where a window needs more GPUs than there are, or nothing was found.
    """
    _check_windows(terms)
    near = None if constant else _of_patterns(terms)
    if near is not None and near.gap <= (CLOSE if terms.capacity.size > LARGE else GAP):
        return near
    try:
        found = _programmed(terms, constant=constant)
    except InfeasibleError:
        if near is None:
            raise
        return near
    if near is None:
        return found
    best, bound = min(near, found, key=lambda p: p.objective), max(near.bound, found.bound)
    return replace(best, bound=min(bound, best.objective))


def _of_patterns(terms: Terms) -> Planned | None:
    """Return the schedule of the windows' cheapest patterns, None where it breaks the terms.

    Where streams have one option each the programme is quick; reserved GPUs, and objectives over
    the day, are about all windows at once.
    """
    if terms.pools.single or terms.daily is not None:
        return None
    if terms.prices is not None and np.isfinite(terms.prices.reserved).any():
        return None
    found = chosen(terms)
    if broken(terms, found.counts):
        return None
    none = np.zeros(terms.pools.types, dtype=np.int64)
    return Planned(found.counts, found.objective, found.bound, none)


def _programmed(terms: Terms, *, constant: bool) -> Planned:
    """Return the schedule of the mixed-integer programme. Raises InfeasibleError without one."""
    import cvxpy as cp

    v, rules = _variables(terms, spares=not terms.pools.single)
    rules += _gpus_at_once(terms, v)
    if terms.daily is not None:
        rules += _over_the_day(terms.daily, v)
    elif terms.pools.single:
        rules.append(v.n >= terms.needed)
    else:
        rules += _divided(terms, v)
    if constant:
        rules.append(v.started == 0)
    cost, reserved_rules = _bill(terms, v)
    found = _solved(cp.Problem(cp.Minimize(cost), [*rules, *reserved_rules]))
    counts = _whole(v.n)
    if found is None or (fault := broken(terms, counts)):
        raise InfeasibleError(_nothing(terms, "" if found is None else fault))
    total = bill(terms, counts)
    return Planned(counts, total.total, min(found, total.total), total.reserved)


def most_carried(terms: Terms) -> Planned:
    """Return the schedule on `most_gpus` that carries most requests, with a bound.

    GPUs change from pool to pool: what starts serves a start time after its window begins. Of those
    that carry as much, the one with the fewest GPU-hours.
    """
    import cvxpy as cp

    assert terms.most_gpus is not None
    v, rules = _variables(terms, spares=True)
    served = cp.Variable(terms.rates.shape, nonneg=True)
    waiting = np.minimum(terms.times.start / terms.durations, 1.0)[None, :]
    able = v.up - cp.multiply(np.repeat(waiting, terms.capacity.shape[0], axis=0), v.started)
    rules += _options_within(terms, v.carried, able)
    rules += [
        _by_stream(terms) @ v.carried >= served,
        served <= terms.rates,
        *_within_limits(terms, v.n),
    ]
    amount = cp.sum(served @ terms.durations)
    bound = _solved(cp.Problem(cp.Maximize(amount), rules))
    if bound is None:
        raise InfeasibleError(_nothing(terms, ""))
    carried, counts = float(amount.value), _whole(v.n)
    hours, _ = _bill(replace(terms, prices=None), v)
    if (
        _solved(cp.Problem(cp.Minimize(hours), [*rules, amount >= (1 - SAME) * carried]))
        is not None
    ):
        carried, counts = float(amount.value), _whole(v.n)
    total = float((terms.rates @ terms.durations).sum())
    none = np.zeros(terms.pools.types, dtype=np.int64)
    if total == 0:
        return Planned(counts, 1.0, 1.0, none)
    return Planned(counts, carried / total, max(min(bound, total), carried) / total, none)


def _variables(terms: Terms, *, spares: bool) -> tuple[_Variables, list[Any]]:
    """Return the variables, and what holds for them in both problems.

    spares : whether instances that are up differ from those that are there
    """
    import cvxpy as cp

    shape, pools = terms.capacity.shape, terms.pools
    n = cp.Variable(shape, integer=True)
    started, stopped = cp.Variable(shape, nonneg=True), cp.Variable(shape, nonneg=True)
    carried = cp.Variable((pools.stream.size, terms.windows), nonneg=True)
    v = _Variables(n, n, started, stopped, carried)
    rules = [n >= 0, n - v.before == started - stopped]
    if terms.reliability is not None and spares:
        v, more = _spares(terms, v)
        rules += more
    rules += _pools_used(terms, v)
    if terms.times.stay > 0:
        rules.append(started @ _recent(terms) <= n)
    if terms.most_changes is not None:
        rules.append(cp.sum(started + stopped, axis=0) <= terms.most_changes)
    return v, rules


def _recent(terms: Terms) -> Any:
    """Return which starts bind in which window [start, window]."""
    import scipy.sparse as sp

    pairs = [(other, w) for w in range(terms.windows) for other in terms.recent(w)]
    rows, columns = zip(*pairs, strict=True)
    shape = (terms.windows, terms.windows)
    return sp.csc_array((np.ones(len(pairs)), (rows, columns)), shape=shape)


def _spares(terms: Terms, v: _Variables) -> tuple[_Variables, list[Any]]:
    """Tie n to the instances that are up: n = up + spares, each step of the spares a binary."""
    import cvxpy as cp

    assert terms.reliability is not None
    up = cp.Variable(v.n.shape, integer=True)
    streams = terms.pools.stream[terms.pools.option]
    most = np.ceil((terms.wanted[streams] / terms.capacity).max(axis=1)).astype(int) + 1
    rules: list[Any] = [up >= 0]
    for pool, share in enumerate(terms.reliability.up):
        table = totals(float(share), terms.reliability.availability, int(most[pool]))
        spares = table - np.arange(table.size)
        widths = np.bincount(spares)
        widths[0] -= 1  # k = 0 needs nothing
        steps = cp.Variable((max(widths.size - 1, 1), terms.windows), boolean=True)
        rules.append(up[pool] <= widths[0] + widths[1:] @ steps[: widths.size - 1])
        rules.append(v.n[pool] == up[pool] + cp.sum(steps[: widths.size - 1], axis=0))
        rules += [steps[j] >= steps[j + 1] for j in range(widths.size - 2)]
    return _Variables(v.n, up, v.started, v.stopped, v.carried), rules


def _divided(terms: Terms, v: _Variables) -> list[Any]:
    """Return that options carry what is wanted of their streams, within their pools."""
    rules = _options_within(terms, v.carried, v.up)
    return [*rules, _by_stream(terms) @ v.carried >= terms.wanted]


def _over_the_day(daily: Daily, v: _Variables) -> list[Any]:
    """Return that the day's requests meet the objectives: each step to more instances a binary."""
    import cvxpy as cp

    pools, windows, choices = daily.choices.shape
    steps = [cp.Variable((windows, max(choices - 1, 1)), boolean=True) for _ in range(pools)]
    rules: list[Any] = []
    for pool, taken in enumerate(steps):
        more = np.diff(daily.choices[pool], axis=1)
        taken = taken[:, : choices - 1]
        rules.append(
            v.n[pool] >= daily.choices[pool, :, 0] + cp.sum(cp.multiply(more, taken), axis=1)
        )
        rules += [taken[:, k] >= taken[:, k + 1] for k in range(choices - 2)]
    for floor in daily.floors:
        met = sum(
            cp.sum(
                cp.multiply(
                    floor.weights[:, None] * np.diff(shares, axis=1), steps[pool][:, : choices - 1]
                )
            )
            + float(floor.weights @ shares[:, 0])
            for pool, shares in floor.parts
        )
        rules.append(met >= floor.least)
    return rules


def _options_within(terms: Terms, carried: Any, able: Any) -> list[Any]:
    import cvxpy as cp

    return [cp.multiply(terms.capacity, able) >= carried[terms.pools.option]]


def _by_stream(terms: Terms) -> Floats:
    """Return which option serves which stream [stream, option]."""
    options = terms.pools.stream
    table: Floats = (options[None, :] == np.arange(options.max() + 1)[:, None]).astype(float)
    return table


def _by_type(terms: Terms) -> Floats:
    """Return the GPUs of an instance, in the row of its type [type, pool]."""
    return terms.pools.by_type(np.eye(terms.pools.gpus.size))


def _gpus_at_once(terms: Terms, v: _Variables) -> list[Any]:
    """Return that there are the GPUs that serve, and those that start beside them."""
    return [*_within_limits(terms, v.n), *_within_limits(terms, v.before + v.started)]


def _within_limits(terms: Terms, counts: Any) -> list[Any]:
    table = _by_type(terms)
    rules = [budget.per_gpu @ table @ counts <= budget.most for budget in terms.budgets]
    if terms.most_gpus is not None:
        most = np.repeat(terms.most_gpus[:, None].astype(float), terms.windows, axis=1)
        rules.append(table @ counts <= most)
    return rules


def _pools_used(terms: Terms, v: _Variables) -> list[Any]:
    """Return that pools which are used have their least instances, and are not too many."""
    import cvxpy as cp

    if terms.least is None and terms.most_pools is None:
        return []
    pools, windows = terms.capacity.shape
    streams = terms.pools.stream[terms.pools.option]
    # twice what the fullest window needs, unless there are fewer GPUs: more is never cheaper
    most = 2 * np.ceil((terms.wanted[streams] / terms.capacity).max(axis=1)) + 1
    if terms.most_gpus is not None:
        most = np.maximum(terms.most_gpus[terms.pools.gpu_type] // terms.pools.gpus, 0)
    most = np.maximum(most, 1 if terms.least is None else terms.least)[:, None]
    serves = cp.Variable((pools, windows), boolean=True)
    rules = [v.n <= cp.multiply(np.repeat(most, windows, axis=1), serves)]
    if terms.least is not None:
        least = np.repeat(terms.least[:, None], windows, axis=1)
        rules.append(v.n >= cp.multiply(least, serves))
    if terms.most_pools is not None:
        used = cp.Variable(pools, boolean=True)
        rules += [serves[:, w] <= used for w in range(windows)]
        rules.append(cp.sum(used) <= terms.most_pools)
    return rules


def _bill(terms: Terms, v: _Variables) -> tuple[Any, list[Any]]:
    """Return the bill as an expression, and what ties reserved GPUs to it."""
    import cvxpy as cp

    prices = terms.prices or free_of_reserves(terms)
    inside, earlier = overlaps(terms)
    hours, rules, total = terms.durations / 3600.0, [], 0.0
    table = _by_type(terms)
    for t in range(terms.pools.types):
        used, starting = table[t] @ v.n, table[t] @ v.started
        if not np.isfinite(prices.reserved[t]):
            lead = terms.times.start / 3600.0
            total += prices.on_demand[t] * (used @ hours + lead * cp.sum(starting))
            continue
        reserved = cp.Variable(integer=True)
        alone, beside = (cp.Variable(terms.windows, nonneg=True) for _ in range(2))
        before = table[t] @ v.before
        rules += [reserved >= 0, alone >= used - reserved, beside >= before + starting - reserved]
        seconds = alone @ (terms.durations - np.roll(inside, -1)) + beside @ inside
        total += prices.on_demand[t] * (seconds + starting @ earlier) / 3600.0
        total += prices.reserved[t] * float(hours.sum()) * reserved
    return total, rules


def _solved(problem: Any) -> float | None:
    """Solve; return the bound, None without a point (a limit then leaves zeros behind)."""
    import cvxpy as cp
    from highspy import SolutionStatus

    with nothing_printed(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate" at a time limit
        try:
            problem.solve(solver=cp.HIGHS, mip_rel_gap=GAP, time_limit=SECONDS)
        except cp.SolverError:
            return None
    if problem.solver_stats is None or problem.status not in ("optimal", "user_limit"):
        return None
    info = problem.solver_stats.extra_stats
    if info.primal_solution_status != SolutionStatus.kSolutionStatusFeasible:
        return None
    bound = float(info.mip_dual_bound)
    return -bound if isinstance(problem.objective, cp.Maximize) else bound


def _whole(variable: Any) -> Ints:
    """Return a solved variable as whole numbers; zeros without a solution."""
    if variable.value is None:
        return np.zeros(variable.shape, dtype=np.int64)
    return np.rint(variable.value).astype(np.int64)


def _check_windows(terms: Terms) -> None:
    """Raise InfeasibleError for a window that needs more GPUs than there are by itself."""
    if terms.most_gpus is None or not terms.pools.single or terms.daily is not None:
        return
    together = terms.pools.by_type(terms.needed)
    over = together - terms.most_gpus[:, None]
    if over.max() > 0:
        t, window = np.unravel_index(int(np.argmax(over)), over.shape)
        raise InfeasibleError(
            f"window {window + 1} of {terms.windows} needs {int(together[t, window])} GPUs for "
            f"{terms.rates[:, window].sum():.4g} req/s, {int(terms.most_gpus[t])} are there"
        )


def _nothing(terms: Terms, fault: str) -> str:
    """Return why there is no schedule, as far as it is known."""
    bound = [
        (terms.most_gpus is not None, "more GPUs (what starts runs beside what still serves)"),
        *((True, f"a larger {budget.name}") for budget in terms.budgets),
        (terms.most_pools is not None, "more configurations"),
        (terms.times.stay > 0, "a shorter least stay"),
        (terms.most_changes is not None, "more changes a window"),
        (terms.reliability is not None, "a lower availability"),
        (True, "longer windows"),
    ]
    ways = ", ".join(words for holds, words in bound if holds)
    why = f" ({fault})" if fault else ""
    return f"no schedule was found within {SECONDS:.0f} s{why}: allow {ways}"
