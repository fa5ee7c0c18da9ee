"""A plan on the exact tables: which pools, how many instances, which class goes where.

Given the chosen pools, the split of the classes is a small linear programme of its own. It is
written apart from the multiple-choice programme on purpose: the objective that is reported is
what this evaluation gives on the unscaled, unclipped tables, not what the solver claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Requirements,
    Tables,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Chosen pools and flows.

    pool : rows of `Tables.pools` [n]; count : instances [n]; rates : [n, w] rate of each class
    through each pool [req/s]; pairs : [f, 3] prefill GPU type, decode GPU type, class;
    flows : rate of each pair [f, req/s]; served : [w, req/s]; objective : in its own units
    """

    pool: Ints
    count: Ints
    rates: Floats
    pairs: Ints
    flows: Floats
    served: Floats
    objective: float

    def gpus(self, tables: Tables) -> Ints:
        """Return the GPUs used of each type [g]."""
        used = np.zeros(tables.supply.count, dtype=np.int64)
        np.add.at(used, tables.pools.gpu[self.pool], tables.pools.size[self.pool] * self.count)
        return used

    def goodput(self, tables: Tables) -> Floats:
        """Return F(k) of each chosen pool [n, req/s]."""
        return np.asarray(tables.pools.goodput[self.pool, self.count])

    def load(self, tables: Tables) -> Floats:
        """Return each pool's rate over its goodput at the mix of its recipe [n, 1]."""
        return used_rate(tables, self.pool, self.rates) / self.goodput(tables)

    def started_gpus(self, tables: Tables, requirements: Requirements) -> float:
        """Return the GPUs that start serving a configuration that they do not serve today."""
        running = np.zeros(len(tables.keys))
        size = np.zeros(len(tables.keys))
        np.add.at(running, tables.pools.key[self.pool], self.count)
        size[tables.pools.key] = tables.pools.size
        fresh = np.maximum(running - requirements.deployed_count(tables), 0)
        return float(fresh @ size)

    def cost(self, tables: Tables, requirements: Requirements) -> float:
        """Return price of the GPUs used plus the charge for those that start [$/h]."""
        price = float(self.gpus(tables) @ tables.supply.price)
        if requirements.start_price:
            price += requirements.start_price * self.started_gpus(tables, requirements)
        return price

    def watts(self, tables: Tables) -> float:
        """Return the power of the GPUs used [W]."""
        return float(self.gpus(tables) @ tables.supply.watts)


def used_rate(tables: Tables, pool: Ints, rates: Floats) -> Floats:
    """Return the total rate of the recipe that covers the class rates of each pool [n, req/s]."""
    mixes = tables.mixes[tables.pools.recipe[pool]]
    ratio = np.where(mixes > 0, rates / np.where(mixes > 0, mixes, 1.0), 0.0)
    return np.asarray(ratio.max(axis=1, initial=0.0))


def assign(
    tables: Tables, requirements: Requirements, pool: Ints, count: Ints, *, trim: bool = True
) -> Plan | None:
    """Return the best split of the classes over the chosen pools; None if demand is not met.

    With `trim`, instances that the objective does not need are given back. The final split
    keeps the highest load of any pool as low as possible.
    """
    objective = _split(tables, requirements, pool, count, None, None)
    if objective is None:
        return None
    value, _, _ = objective
    kept = pool, count
    if trim:
        weight = tables.pools.size[pool] * count / tables.pools.goodput[pool, count]
        leanest = _split(tables, requirements, pool, count, value, weight)
        if leanest is not None:
            kept = _give_back(tables, requirements, pool, count, leanest[1])
    balanced = _split(tables, requirements, *kept, value, None)
    if balanced is None:
        return assign(tables, requirements, pool, count, trim=False) if trim else None
    return _plan(tables, requirements, *kept, value, balanced[1], balanced[2])


def _give_back(
    tables: Tables, requirements: Requirements, pool: Ints, count: Ints, rate: Floats
) -> tuple[Ints, Ints]:
    """Return the pools with the fewest instances that still carry `rate`.

    Their network cards may then be too few: the split that follows finds out.
    """
    fewest = requirements.fewest(tables)[pool]
    carried = tables.pools.goodput[pool] >= rate[:, None] * (1 - 1e-9)
    enough = np.maximum(np.argmax(carried, axis=1), fewest)
    needed = np.where(carried.any(axis=1), np.minimum(enough, count), count)
    used = rate > 1e-9 * max(float(rate.max(initial=0.0)), 1e-300)
    return pool[used], needed[used]


def _pairs(tables: Tables, pool: Ints) -> Ints:
    """Return every (prefill type, decode type, class) the chosen pools could form."""
    pools, supply = tables.pools, tables.supply
    ends: dict[int, set[tuple[int, int]]] = {PREFILL: set(), DECODE: set()}
    for p in pool:
        if pools.role[p] != COLLOCATED:
            for w in np.flatnonzero(tables.mixes[pools.recipe[p]]):
                ends[int(pools.role[p])].add((int(pools.gpu[p]), int(w)))
    found = [
        (g, h, w)
        for g, w in sorted(ends[PREFILL])
        for h, v in sorted(ends[DECODE])
        if v == w and supply.fabric[g, h] > 0 and min(supply.nic[g], supply.nic[h]) > 0
    ]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _split(
    tables: Tables,
    requirements: Requirements,
    pool: Ints,
    count: Ints,
    value: float | None,
    weight: Floats | None,
) -> tuple[float, Floats, Floats] | None:
    """Solve for rates y [n] and flows f.

    value None: best objective. Otherwise the objective is held and Σ weight·y is least, or, with
    weight None, the highest load is least.
    """
    from scipy.optimize import linprog

    demand, n = tables.demand, pool.size
    pairs = _pairs(tables, pool)
    single = requirements.objective == "max_headroom"
    goals = 0 if requirements.objective == "min_cost" else 1 if single else demand.count
    width = n + len(pairs) + goals + 1
    flow, goal, peak = n, n + len(pairs), width - 1
    goodput = tables.pools.goodput[pool, count]
    rows: list[Floats] = []
    upper: list[float] = []

    def row(limit: float) -> Floats:
        rows.append(np.zeros(width))
        upper.append(limit)
        return rows[-1]

    for i in range(n):
        line = row(0.0)
        line[i], line[peak] = 1.0, -goodput[i]
    _serve_rows(tables, requirements, pool, pairs, flow, goal, row)
    _link_rows(tables, pool, count, pairs, flow, row)
    target = np.zeros(width)
    if value is None:
        bounds_peak = (1.0, 1.0)
        if goals:
            target[goal : goal + goals] = -np.ones(1) if single else -demand.value
    else:
        bounds_peak = (0.0, 1.0)
        if single:
            row(-value * (1 - 1e-9))[goal] = -1.0
        elif goals:
            row(-value * (1 - 1e-9))[goal : goal + goals] = -demand.value
        if weight is not None:
            bounds_peak = (1.0, 1.0)
            target[:n] = weight
        else:
            target[peak] = 1.0
            target[:n] = 1e-6 / np.maximum(goodput, 1e-300) / max(n, 1)
    limits: list[tuple[float, float | None]] = [(0.0, None)] * (n + len(pairs))
    if single:
        limits += [(0.0, None)]
    elif goals:
        limits += [(0.0, rate) for rate in demand.rate.tolist()]
    result: Any = linprog(
        target,
        A_ub=np.array(rows),
        b_ub=np.array(upper),
        bounds=[*limits, bounds_peak],
        method="highs",
    )
    if result.status != 0:
        return None
    return -float(result.fun), result.x[:n], result.x[flow : flow + len(pairs)]


def _serve_rows(
    tables: Tables,
    requirements: Requirements,
    pool: Ints,
    pairs: Ints,
    flow: int,
    goal: int,
    row: object,
) -> None:
    """Add what each class needs, and what the pools of each GPU type can give to flows."""
    assert callable(row)
    pools, demand = tables.pools, tables.demand
    mixes, role = tables.mixes[pools.recipe[pool]], pools.role[pool]
    for w in range(demand.count):
        rate = float(demand.rate[w])
        line = row(-rate if requirements.objective == "min_cost" else 0.0)
        line[: pool.size] = -mixes[:, w] * (role == COLLOCATED)
        line[flow : flow + len(pairs)] = -(pairs[:, 2] == w).astype(float)
        if requirements.objective == "max_headroom":
            line[goal] = rate
        elif requirements.objective == "max_goodput":
            line[goal + w] = 1.0
    for side, end in ((PREFILL, 0), (DECODE, 1)):
        for g, w in sorted({(int(p[end]), int(p[2])) for p in pairs}):
            line = row(0.0)
            line[flow : flow + len(pairs)] = (pairs[:, end] == g) & (pairs[:, 2] == w)
            mine = (role == side) & (pools.gpu[pool] == g)
            line[: pool.size] = -mixes[:, w] * mine


def _link_rows(
    tables: Tables, pool: Ints, count: Ints, pairs: Ints, flow: int, row: object
) -> None:
    """Add the network cards of both ends and the fabric between GPU types."""
    assert callable(row)
    supply, pools = tables.supply, tables.pools
    moved = tables.demand.kv_bytes[pairs[:, 2]]
    for side, end in ((PREFILL, 0), (DECODE, 1)):
        for g in np.flatnonzero(np.isfinite(supply.nic)).tolist():
            mine = (pools.role[pool] == side) & (pools.gpu[pool] == g)
            cards = float((pools.size[pool] * count)[mine].sum())
            unit = max(supply.network_share * supply.nic[g] * max(cards, 1.0), 1e-300)
            line = row(supply.network_share * supply.nic[g] * cards / unit)
            line[flow : flow + len(pairs)] = moved / unit * (pairs[:, end] == g)
    for g, h in sorted({(int(p[0]), int(p[1])) for p in pairs}):
        if np.isfinite(supply.fabric[g, h]):
            unit = supply.network_share * supply.fabric[g, h]
            line = row(1.0)
            line[flow : flow + len(pairs)] = (
                moved / unit * ((pairs[:, 0] == g) & (pairs[:, 1] == h))
            )


def _plan(
    tables: Tables,
    requirements: Requirements,
    pool: Ints,
    count: Ints,
    value: float,
    rate: Floats,
    flows: Floats,
) -> Plan:
    """Return the plan with surplus of single classes taken off, so that rates add up exactly."""
    pools, demand = tables.pools, tables.demand
    pairs = _pairs(tables, pool)
    mixes, role = tables.mixes[pools.recipe[pool]], pools.role[pool]
    offered = mixes * rate[:, None]
    served = (offered * (role == COLLOCATED)[:, None]).sum(axis=0)
    np.add.at(served, pairs[:, 2], flows)
    if requirements.objective == "max_headroom":
        wanted = value * demand.rate
    elif requirements.objective == "max_goodput":
        wanted = np.minimum(served, demand.rate)
    else:
        wanted = demand.rate
    keep = np.where(served > 0, np.minimum(1.0, wanted / np.where(served > 0, served, 1.0)), 0.0)
    flows = flows * keep[pairs[:, 2]]
    rates = offered * np.where((role == COLLOCATED)[:, None], keep[None, :], 1.0)
    for side, end in ((PREFILL, 0), (DECODE, 1)):
        for g in range(tables.supply.count):
            mine = (role == side) & (pools.gpu[pool] == g)
            if not mine.any():
                continue
            total = np.zeros(demand.count)
            at = pairs[:, end] == g
            np.add.at(total, pairs[at, 2], flows[at])
            have = offered[mine].sum(axis=0)
            rates[mine] *= np.where(have > 0, total / np.where(have > 0, have, 1.0), 0.0)
    used = flows > 1e-12 * max(float(flows.max(initial=0.0)), 1e-300)
    price = tables.supply.price
    plan = Plan(
        pool=pool,
        count=count,
        rates=rates,
        pairs=pairs[used],
        flows=flows[used],
        served=np.minimum(served, wanted),
        objective=value,
    )
    if requirements.objective == "min_cost":
        assert price.size
        return Plan(
            pool=pool,
            count=count,
            rates=rates,
            pairs=pairs[used],
            flows=flows[used],
            served=np.minimum(served, wanted),
            objective=plan.cost(tables, requirements),
        )
    return plan
