"""How much of each class any plan can serve, and so how many instances a pool can use.

With goodput superlinear in the instance count, the relaxation is the ray to the last point
(K, F(K)) of each pool; the only lever on it is K. A linear programme that gives every pool its
best goodput per instance bounds the objective, the bound caps the rates, the caps shorten the
pools, and the shorter pools tighten the bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.solvers.allocation import programme as formulation
from bestserve.solvers.allocation.columns import slopes
from bestserve.solvers.allocation.highs import Options, Stop, solve
from bestserve.solvers.allocation.reduction import Reduced, from_tables
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Requirements,
    Tables,
)

ROUNDS = 4
"""Rounds of bound and cap; the fourth changed the bound by less than 0.1 % on all test fleets."""

SAFETY = 1.0 + 1e-4
"""Bounds from the linear programme are widened by this factor before they cut anything off.

Wider than rounding needs: with shares of the cap such as 0.999999 beside shares of 1, a
difference as large as HiGHS's own tolerance, its presolve (1.15.1) called feasible problems
infeasible."""


@dataclass(frozen=True, slots=True)
class Capped:
    """Pools shortened to what any plan can use.

    cap : the most of each class [w, req/s]; bound : of the objective, in its own units;
    feasible : False if even the bound's relaxation has no solution
    """

    reduced: Reduced
    cap: Floats
    bound: float
    feasible: bool


def attainable(tables: Tables, reduced: Reduced) -> Floats:
    """Return an upper bound of each class's rate if every GPU served that class alone [w]."""
    share = tables.mixes[reduced.recipe] * (best_slope(reduced) / reduced.size)[:, None]
    total = np.zeros((3, tables.demand.count))
    for g, gpus in enumerate(tables.supply.gpus):
        for role in (COLLOCATED, PREFILL, DECODE):
            mine = (reduced.gpu == g) & (reduced.role == role)
            if mine.any():
                total[role] += gpus * share[mine].max(axis=0)
    return total[COLLOCATED] + np.minimum(total[PREFILL], total[DECODE])


def rounding_loss(tables: Tables, requirements: Requirements) -> float:
    """Return how much keeping all classes apart may cost: an instance each over the GPUs used [1].

    Counted on the pool with most goodput per GPU for each class, collocated or prefill with
    decode, at the most that any plan serves. inf where some class has no pool.
    """
    reduced = from_tables(tables, requirements)
    if reduced.count == 0 or np.any(attainable(tables, reduced) <= 0):
        return np.inf
    cap = tighten(tables, requirements, reduced, Options(), Stop()).cap
    per_gpu, lost, used = best_slope(reduced) / reduced.size, 0.0, 0.0
    for w in range(tables.demand.count):
        alone = tables.mixes[reduced.recipe, w] == 1
        ways = []
        for roles in ((COLLOCATED,), (PREFILL, DECODE)):
            rows = [np.flatnonzero(alone & (reduced.role == role)) for role in roles]
            if all(mine.size for mine in rows):
                best = np.array([mine[np.argmax(per_gpu[mine])] for mine in rows])
                ways.append((float((cap[w] / per_gpu[best]).sum()), int(reduced.size[best].sum())))
        if not ways:
            return np.inf
        gpus, instance = min(ways)
        used, lost = used + gpus, lost + instance
    return lost / used if used > 0 else np.inf


def best_slope(reduced: Reduced) -> Floats:
    """Return each pool's best goodput per instance within its allowed counts [p, req/s]."""
    k = np.arange(1, reduced.goodput.shape[1])
    per_instance = reduced.goodput[:, 1:] / k
    allowed = k[None, :] <= reduced.most[:, None]
    return np.asarray(np.where(allowed, per_instance, 0.0).max(axis=1, initial=0.0))


def tighten(
    tables: Tables, requirements: Requirements, reduced: Reduced, options: Options, stop: Stop
) -> Capped:
    """Return the pools with F and K cut at what any plan can use."""
    rate = tables.demand.rate
    headroom = requirements.objective == "max_headroom"
    factor = float(np.min(attainable(tables, reduced) / rate)) * SAFETY if headroom else 1.0
    bound = np.inf
    if factor <= 0:
        return Capped(reduced, np.zeros_like(rate), 0.0, False)
    for _ in range(ROUNDS):
        capped = shorten(tables, reduced, factor * rate)
        columns = slopes(capped, best_slope(capped))
        stated = formulation.state(
            tables, requirements, capped, columns, factor * rate, linear=True
        )
        outcome = solve(stated.compiled.model.relaxed(), options, stop=stop)
        if outcome.infeasible:
            return Capped(capped, factor * rate, np.nan, False)
        if outcome.point is None:
            break
        before, bound = bound, stated.objective(outcome.value)
        if not headroom:
            return Capped(capped, rate, bound, True)
        if bound <= 0:
            return Capped(capped, factor * rate, 0.0, False)
        factor = bound * SAFETY
        if bound > before * 0.999:
            break
    return Capped(shorten(tables, reduced, factor * rate), factor * rate, bound, True)


def shorten(tables: Tables, reduced: Reduced, cap: Floats) -> Reduced:
    """Return the pools with F clipped at the cap and K at the first count that reaches it."""
    mixes = tables.mixes[reduced.recipe]
    total = np.where(mixes > 0, cap[None, :] / np.where(mixes > 0, mixes, 1.0), 0.0).max(axis=1)
    goodput = np.minimum(reduced.goodput, total[:, None])
    reaches = goodput >= total[:, None] * (1 - 1e-12)
    first = np.where(reaches.any(axis=1), np.argmax(reaches, axis=1), reduced.most)
    useful = np.maximum(first, _for_network(tables, reduced, cap))
    most = np.minimum(reduced.most, np.maximum(useful, reduced.fewest))
    width = int(most.max(initial=0)) + 1
    return replace(reduced, goodput=goodput[:, :width], source=reduced.source[:, :width], most=most)


def _for_network(tables: Tables, reduced: Reduced, cap: Floats) -> Ints:
    """Return the counts above which more instances do not even help to move KV [p]."""
    supply = tables.supply
    room = supply.network_share * supply.nic[reduced.gpu] * reduced.size
    moved = float(tables.demand.kv_bytes @ cap)
    limited = (reduced.role != COLLOCATED) & np.isfinite(room) & (room > 0)
    needed = np.ceil(moved / np.where(limited, room, 1.0))
    return np.where(limited, np.minimum(needed, reduced.most), 0).astype(np.int64)
