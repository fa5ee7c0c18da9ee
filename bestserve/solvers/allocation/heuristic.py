"""Good plans fast: dynamic slope scaling, then small exact programmes around its points.

Slope scaling solves linear programmes in which a pool brings its goodput per instance *at the
count the previous round chose*: pools that are used little look bad in the next round. Its last
point names the pools and about how many instances; the multiple-choice programme restricted to a
window of counts around it is small, and repairs it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.solvers.allocation import programme as formulation
from bestserve.solvers.allocation.caps import best_slope
from bestserve.solvers.allocation.columns import Columns, slopes
from bestserve.solvers.allocation.highs import Options, Outcome, Stop, solve
from bestserve.solvers.allocation.programme import Programme
from bestserve.solvers.allocation.proof import Narrowed
from bestserve.solvers.allocation.reduction import Reduced
from bestserve.solvers.allocation.tables import Requirements, Tables

SCALING_ROUNDS = 25
WINDOW = 0.08
"""Counts within 8 % (at least 3) of the point are in the window."""
EXTRAS = (12, 25, 50)
"""Pools drawn from earlier rounds into successive windows: at 1 to 5 instances, and near the
counts that those rounds chose."""

WINDOW_SECONDS = 10.0
"""Time limit of one window."""

MOST_WINDOWS = 40


@dataclass(frozen=True, slots=True)
class Points:
    """What slope scaling found.

    last : continuous counts of the last round [p]; used : rounds in which a pool was used [p];
    typical : its count in the last of these [p]
    """

    last: Floats
    used: Floats
    typical: Floats


def scale_slopes(
    tables: Tables,
    requirements: Requirements,
    reduced: Reduced,
    cap: Floats,
    options: Options,
    stop: Stop,
) -> Points:
    """Run the rounds of slope scaling."""
    rows = np.arange(reduced.count)
    slope = reduced.goodput[rows, reduced.most] / np.maximum(reduced.most, 1)
    base = np.maximum(best_slope(reduced), 1e-300)
    stated = formulation.state(
        tables, requirements, reduced, slopes(reduced, base), cap, linear=True
    )
    model, place = stated.compiled.model.relaxed(), stated.compiled.columns["x"]
    is_rate = np.zeros(model.upper.size, dtype=bool)
    for name in ("demand", "prefill rate", "decode rate"):
        is_rate[stated.algebra.row_slice(name)] = True
    pool = np.full(model.cost.size, -1)
    pool[place] = rows
    entry_pool = np.repeat(pool, np.diff(model.matrix.indptr))
    scaled = is_rate[model.matrix.indices] & (entry_pool >= 0)
    count, used, typical = np.zeros((3, reduced.count))
    for _ in range(SCALING_ROUNDS):
        matrix = model.matrix.copy()
        matrix.data[scaled] *= (slope / base)[entry_pool[scaled]]
        outcome = solve(replace(model, matrix=matrix), options, stop=stop)
        if outcome.point is None or stop.now:
            break
        count = outcome.point[place]
        active = count > 1e-9
        used += active
        typical = np.where(active, count, typical)
        slope = np.where(active, slope_at(reduced, count), slope)
    return Points(count, used, typical)


def slope_at(reduced: Reduced, count: Floats) -> Floats:
    """Return goodput per instance at continuous counts [p]; below the fewest it is discounted.

    A pool of a fraction of an instance must pay for a whole one in the end; the exponent ½ was
    found to steer better than the full penalty 1.
    """
    fewest = reduced.fewest.astype(np.float64)
    at = np.clip(count, fewest, reduced.most)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, reduced.most)
    rows = np.arange(reduced.count)
    part = at - low
    value = (1 - part) * reduced.goodput[rows, low] + part * reduced.goodput[rows, high]
    discount = np.where(count < fewest, np.sqrt(np.maximum(count / fewest, 0.3)), 1.0)
    return np.asarray(value / at * discount)


def window(columns: Columns, reduced: Reduced, centres: list[Floats], extra: Ints) -> Bools:
    """Return the columns near any of the centres, and the small counts of `extra` pools [j]."""
    keep = np.zeros(columns.pool.size, dtype=bool)
    for centre in centres:
        at = centre[columns.pool]
        reach = np.maximum(3.0, WINDOW * at)
        keep |= (at > 1e-9) & (columns.repeated | (np.abs(columns.count - at) <= reach))
    small = columns.count < reduced.fewest[columns.pool] + 5
    return keep | (np.isin(columns.pool, extra) & small)


def _around(columns: Columns, reduced: Reduced, narrowed: Narrowed, position: Ints) -> Bools:
    """Return the columns at and next to those that the relaxation with cuts uses [j].

    Before any cuts the relaxation is too far from a plan to be worth following.
    """
    near = np.zeros(columns.pool.size, dtype=bool)
    point = narrowed.relaxed.point
    if point is None or narrowed.cuts == 0:
        return near
    value = np.where(position >= 0, point[np.maximum(position, 0)], 0.0)
    for j in np.flatnonzero(value > 1e-3):
        reach = max(2.0, WINDOW / 2 * columns.count[j])
        first = max(0, j - int(reach))
        span = slice(first, j + int(reach) + 1)
        near[span] |= columns.pool[span] == columns.pool[j]
    return near


def improve(
    programme: Programme,
    narrowed: Narrowed,
    reduced: Reduced,
    points: Points,
    start: Floats | None,
    options: Options,
    stop: Stop,
    seconds: float,
    found: Callable[[Floats, float], None],
    good_enough: Callable[[float], bool],
    patience: int = 3,
) -> Floats | None:
    """Return the best point of windows around `points` and the incumbent `start`.

    narrowed : the programme without what no better plan uses; found(point, value) is told each
    better point; good_enough(value) ends the search, as do `patience` windows without gain.
    """
    rng = np.random.default_rng([options.seed, narrowed.keep.size])
    size, columns = programme.compiled.model.cost.size, programme.columns
    place, model = programme.compiled.columns["x"], narrowed.model
    position = narrowed.positions(place)
    others = np.setdiff1d(np.arange(model.cost.size), position[position >= 0], assume_unique=True)
    best = start
    value = np.inf if start is None else float(programme.compiled.model.cost @ start)
    around = _around(columns, reduced, narrowed, position)
    budget, idle, trial = Stop(seconds), 0, 0

    def draw() -> Ints:
        """Return the columns of the next window."""
        centres = [points.last]
        if best is not None:
            chosen, count = columns.instances(best[place])
            mine = np.zeros(reduced.count)
            np.maximum.at(mine, columns.pool[chosen], count)
            centres = [points.last, mine] if trial < 2 else [mine]
        weight = points.used + 1e-3
        many = min(EXTRAS[min(trial, len(EXTRAS) - 1)], reduced.count)
        extra = rng.choice(reduced.count, size=many, replace=False, p=weight / weight.sum())
        drawn = np.zeros(reduced.count)
        drawn[extra] = points.typical[extra]
        near = position[window(columns, reduced, [*centres, drawn], extra) | around]
        return np.union1d(near[near >= 0], others)

    def look(keep: Ints) -> Outcome:
        """Solve one window, from the incumbent."""
        begin = None if best is None else narrowed.start(best)[keep]
        limits = replace(
            options,
            seconds=min(WINDOW_SECONDS, budget.left),
            gap=max(options.gap / 4, 1e-4),
            threads=1,
        )
        return solve(model.restricted(keep), limits, start=begin, stop=stop)

    while trial < MOST_WINDOWS and not (stop.now or budget.now or good_enough(value)):
        if idle >= (patience if best is not None else 2 * patience + 3):
            break
        # HiGHS hardly uses a second core on one such model, so windows run side by side.
        kept = [draw() for _ in range(options.threads)]
        trial += 1
        with ThreadPoolExecutor(max_workers=len(kept)) as pool:
            outcomes = list(pool.map(look, kept))
        keep, outcome = min(zip(kept, outcomes, strict=True), key=lambda pair: pair[1].value)
        if outcome.point is not None and outcome.value < value - 1e-9:
            gain = (value - outcome.value) / max(abs(outcome.value), 1e-12)
            filled = np.zeros(model.cost.size)
            filled[keep] = outcome.point
            best, value = narrowed.whole(filled, size), outcome.value
            found(best, value)
            idle = 0 if gain > 1e-4 else idle + 1
        else:
            idle += 1
    return best
