"""Schedules of instances: the cheapest that carries a load, and the best split of given GPUs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InfeasibleError
from bestserve.host.stdout import nothing_printed

GAP = 1e-3
SECONDS = 20.0
"""Relative gap at which the search for a schedule ends, and the longest it takes [s]."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a schedule must do and what it costs.

    capacity : rate an instance carries [pool, window; req/s]; rates [window; req/s]
    durations [window; s]; gpus : of an instance [pool]
    headroom : share of the rate to spare; start_time : an instance is paid before it serves [s]
    switch_time : an instance that changes its role serves nobody [s]; most_gpus : at once
    reserved_price, price : of a GPU-hour that is paid all day, and of one when used [USD/h];
        None: GPU-hours are counted instead
    """

    capacity: Floats
    rates: Floats
    durations: Floats
    gpus: Ints
    headroom: float = 0.0
    start_time: float = 180.0
    switch_time: float = 60.0
    most_gpus: int | None = None
    price: float | None = None
    reserved_price: float | None = None

    @property
    def needed(self) -> Ints:
        """Instances that each window needs by itself [pool, window], at least one."""
        wanted = self.rates * (1.0 + self.headroom) / self.capacity
        return np.maximum(np.ceil(wanted - 1e-9), 1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Planned:
    """Instances by pool and window [pool, window], the objective and a bound on it.

    objective, bound : GPU-hours, or USD where prices are given; reserved : GPUs paid all day
    """

    counts: Ints
    objective: float
    bound: float
    reserved: int = 0

    @property
    def gap(self) -> float:
        """How far the objective may be above the best, as a share of it [1]."""
        return 1.0 - self.bound / self.objective if self.objective > 0 else 0.0


def gpu_hours(terms: Terms, counts: Ints) -> float:
    """Return the GPU-hours of a schedule with its starts; the first window follows the last."""
    serving = float((terms.gpus @ counts) @ terms.durations)
    starts = np.maximum(counts - np.roll(counts, 1, axis=1), 0)
    return (serving + terms.start_time * float((terms.gpus @ starts).sum())) / 3600.0


def static(terms: Terms) -> Ints:
    """Return the smallest fleet that never changes and carries every window [pool, window]."""
    counts = terms.needed.max(axis=1, keepdims=True)
    return np.repeat(counts, terms.rates.size, axis=1)


def cost(terms: Terms, counts: Ints) -> float:
    """Return a schedule's cost: GPU-hours, or USD with reserved GPUs at their best number."""
    if terms.price is None:
        return gpu_hours(terms, counts)
    starts = np.maximum(counts - np.roll(counts, 1, axis=1), 0)
    extra = terms.start_time * float((terms.gpus @ starts).sum()) / 3600.0 * terms.price
    hours = terms.durations / 3600.0
    used = terms.gpus @ counts
    options = range(int(used.max()) + 1) if terms.reserved_price is not None else (0,)
    bills = [
        (terms.reserved_price or 0.0) * reserved * hours.sum()
        + terms.price * float(np.maximum(used - reserved, 0) @ hours)
        for reserved in options
    ]
    return float(min(bills) + extra)


def cheapest(terms: Terms) -> Planned:
    """Return the cheapest schedule in which every window carries its rate, with a bound.

    A mixed-integer programme: n instances a pool and window, u ≥ n − n₋₁ of them started,
    minimise Σ W·gpus·n + start_time·gpus·u (or the bill of reserved and other GPUs) subject to
    capacity·n ≥ (1 + headroom)·rate. The day repeats itself. Raises InfeasibleError when a window
    needs more than `most_gpus`.
    """
    import cvxpy as cp

    needed = terms.needed
    together = terms.gpus @ needed
    if terms.most_gpus is not None and together.max() > terms.most_gpus:
        window = int(np.argmax(together))
        raise InfeasibleError(
            f"window {window + 1} of {terms.rates.size} needs {together[window]} GPUs for "
            f"{terms.rates[window]:.4g} req/s, {terms.most_gpus} are there"
        )
    shape = needed.shape
    n, u = cp.Variable(shape, integer=True), cp.Variable(shape, nonneg=True)
    before = cp.hstack([n[:, -1:], n[:, :-1]])
    constraints = [n >= needed, u >= n - before]
    used = terms.gpus.astype(float) @ n
    if terms.most_gpus is not None:
        constraints.append(used <= terms.most_gpus)
    hours = terms.durations / 3600.0
    starting = terms.start_time / 3600.0 * cp.sum(terms.gpus.astype(float) @ u)
    reserved = cp.Variable(integer=True)
    if terms.price is None:
        objective = used @ hours + starting
        constraints.append(reserved == 0)
    else:
        over = cp.Variable(terms.rates.size, nonneg=True)
        constraints += [over >= used - reserved, reserved >= 0]
        objective = terms.price * (over @ hours + starting)
        if terms.reserved_price is None:
            constraints.append(reserved == 0)
        else:
            objective += terms.reserved_price * float(hours.sum()) * reserved
    problem = cp.Problem(cp.Minimize(objective), constraints)
    with nothing_printed():
        problem.solve(solver=cp.HIGHS, mip_rel_gap=GAP, time_limit=SECONDS)
    if n.value is None:
        raise InfeasibleError(f"no schedule was found within {SECONDS:.0f} s: take longer windows")
    counts = np.rint(n.value).astype(np.int64)
    found = cost(terms, counts)
    bound = min(float(problem.solver_stats.extra_stats.mip_dual_bound), found)
    held = round(float(reserved.value or 0.0))
    return Planned(counts, found, bound, held)


@dataclass(frozen=True, slots=True)
class Split:
    """The split of N GPUs into prefill and decode, window by window, and what it carries.

    counts [pool, window]; carried : share of the requests within capacity [1]
    """

    counts: Ints
    carried: float


def splits(terms: Terms, gpus: int) -> Ints:
    """Return the ways to split `gpus` into two pools [pool, way]; none of both may be empty."""
    one, other = (int(g) for g in terms.gpus)
    ways = [(p, (gpus - p * one) // other) for p in range(1, gpus // one + 1)]
    kept = [way for way in ways if way[1] >= 1]
    if not kept:
        raise InfeasibleError(f"{gpus} GPUs hold no instance of each pool ({one} and {other} GPUs)")
    return np.array(kept, dtype=np.int64).T


def served(terms: Terms, ways: Ints) -> Floats:
    """Return the requests that each way serves in each window at its capacity [way, window]."""
    capacity = np.min(ways[:, :, None] * terms.capacity[:, None, :], axis=0)
    result: Floats = np.minimum(terms.rates, capacity) * terms.durations
    return result


def switching(terms: Terms, ways: Ints) -> Floats:
    """Return what is lost when one way follows another [window, from, to; requests].

    For the switch time only the instances that both have serve.
    """
    common = np.minimum(ways[:, :, None], ways[:, None, :])
    meanwhile = np.min(common[..., None] * terms.capacity[:, None, None, :], axis=0)
    after = np.min(ways[:, :, None] * terms.capacity[:, None, :], axis=0)
    lost = np.minimum(terms.rates, after)[None] - np.minimum(terms.rates, meanwhile)
    time = np.minimum(terms.switch_time, terms.durations)
    return np.moveaxis(np.maximum(lost, 0.0) * time, 2, 0)


def best_split(terms: Terms, gpus: int) -> Split:
    """Return the splits of `gpus` over time that serve most requests, by dynamic programming."""
    ways = splits(terms, gpus)
    gain, loss = served(terms, ways), switching(terms, ways)
    windows = terms.rates.size
    value, chosen = gain[:, 0], np.zeros((windows, ways.shape[1]), dtype=np.int64)
    for w in range(1, windows):
        through = value[:, None] - loss[w]
        chosen[w] = np.argmax(through, axis=0)
        value = np.max(through, axis=0) + gain[:, w]
    path = [int(np.argmax(value))]
    for w in range(windows - 1, 0, -1):
        path.append(int(chosen[w, path[-1]]))
    total = float(terms.rates @ terms.durations)
    return Split(ways[:, path[::-1]], float(value.max()) / total if total > 0 else 1.0)


def static_split(terms: Terms, gpus: int) -> Split:
    """Return the one split of `gpus` that serves most requests if it never changes."""
    ways = splits(terms, gpus)
    sums = served(terms, ways).sum(axis=1)
    best = int(np.argmax(sums))
    total = float(terms.rates @ terms.durations)
    counts = np.repeat(ways[:, best : best + 1], terms.rates.size, axis=1)
    return Split(counts, float(sums[best]) / total if total > 0 else 1.0)
