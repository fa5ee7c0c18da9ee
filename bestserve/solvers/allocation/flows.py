"""Which class is served where: collocated, or prefilled on one GPU type and decoded on another.

The rows of the programme that tie rates to the chosen columns, flows to rates, and flows to the
networks that carry their KV cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.solvers.allocation.algebra import Algebra, Variable, sparse, sparse_of
from bestserve.solvers.allocation.columns import Columns
from bestserve.solvers.allocation.reduction import Reduced
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Requirements,
    Tables,
)

TOLERANCE = 1e-6
"""HiGHS's feasibility tolerance: shares of a cap closer to 1 than this are 1."""


def add_flows(
    algebra: Algebra,
    tables: Tables,
    requirements: Requirements,
    reduced: Reduced,
    columns: Columns,
    cap: Floats,
    gpus: Floats,
) -> None:
    """Classes served by collocated pools and by pairs of prefill and decode pools."""
    demand, supply, width = tables.demand, tables.supply, columns.pool.size
    role, kind = reduced.role[columns.pool], reduced.gpu[columns.pool]
    share = tables.mixes[reduced.recipe[columns.pool]] / cap[None, :] * columns.goodput[:, None]
    share[np.abs(share - 1.0) < TOLERANCE] = 1.0
    # Without links that can bind, all GPU types are one place: one flow a class suffices.
    place = kind if supply.networked else np.zeros_like(kind)
    sides = {}
    for side in (PREFILL, DECODE):
        at, of = np.nonzero(share * (role == side)[:, None])
        sides[side] = (at, of, share[at, of], place[at])
    pairs = _pairs(tables, sides)
    source, target, of = pairs.T
    algebra.variables["f"] = Variable(np.ones(len(pairs)))
    flows = np.arange(len(pairs))
    for side, end in ((PREFILL, source), (DECODE, target)):
        at, classes, value, where = sides[side]
        number = where * demand.count + classes
        needed = np.unique(end * demand.count + of)
        inside = np.isin(number, needed)
        rows = np.searchsorted(needed, number[inside])
        give = sparse(rows, at[inside], -value[inside], (needed.size, width))
        into = np.searchsorted(needed, end * demand.count + of)
        take = sparse(into, flows, np.ones(flows.size), (needed.size, flows.size))
        labels = tuple(
            (f"{supply.names[n // demand.count]}: " if supply.networked else "")
            + demand.names[n % demand.count]
            for n in needed
        )
        terms = {"f": take, "x": give}
        algebra.add(f"{('', 'prefill', 'decode')[side]} rate", terms, np.zeros(needed.size), labels)
    served = (share * (role == COLLOCATED)[:, None]).T
    arriving = sparse(of, flows, np.ones(flows.size), (demand.count, flows.size))
    terms = {"x": -sparse_of(served), "f": -arriving}
    if requirements.objective == "min_cost":
        need = -demand.rate / cap
        algebra.add("demand", terms, need, demand.names)
    else:
        single = requirements.objective == "max_headroom"
        algebra.variables["t"] = Variable(np.ones(1 if single else demand.count))
        terms["t"] = np.ones((demand.count, 1)) if single else np.eye(demand.count)
        algebra.add("demand", terms, np.zeros(demand.count), demand.names)
        weight = demand.value * demand.rate
        algebra.cost["t"] = -np.ones(1) if single else -weight / weight.sum()
    if supply.networked and len(pairs):
        load = demand.kv_bytes[of] * cap[of]
        _network_rows(algebra, tables, role, kind, gpus, pairs, load)


def _pairs(tables: Tables, sides: dict[int, Any]) -> Ints:
    """Return the allowed flows [(from, to, class)]; only (0, 0, class) without networks."""
    demand, supply = tables.demand, tables.supply
    from_ = np.unique(np.stack([sides[PREFILL][3], sides[PREFILL][1]], axis=1), axis=0)
    to = np.unique(np.stack([sides[DECODE][3], sides[DECODE][1]], axis=1), axis=0)
    found = [
        (g, h, w)
        for g, w in from_.tolist()
        for h, v in to.tolist()
        if w == v and (not supply.networked or _linked(tables, g, h))
    ]
    assert all(w < demand.count for _, _, w in found)
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _linked(tables: Tables, source: int, target: int) -> bool:
    """Return whether KV can move between two GPU types at all."""
    supply = tables.supply
    ends = min(supply.nic[source], supply.nic[target])
    return bool(supply.fabric[source, target] > 0 and ends > 0)


def _network_rows(
    algebra: Algebra,
    tables: Tables,
    role: Ints,
    kind: Ints,
    gpus: Floats,
    pairs: Ints,
    load: Floats,
) -> None:
    """KV bytes leaving prefill pools, entering decode pools, and crossing between GPU types."""
    supply, width = tables.supply, role.size
    source, target, _ = pairs.T
    flows = np.arange(len(pairs))
    unit = float(load.max()) or 1.0
    limited = np.flatnonzero(np.isfinite(supply.nic))
    labels = tuple(supply.names[g] for g in limited)
    for name, end, side in (("egress", source, PREFILL), ("ingress", target, DECODE)):
        into = np.full(supply.count, -1)
        into[limited] = np.arange(limited.size)
        uses = into[end] >= 0
        take = sparse(into[end[uses]], flows[uses], load[uses] / unit, (limited.size, flows.size))
        has = (role == side) & (into[kind] >= 0)
        room = supply.network_share * supply.nic[kind[has]] * gpus[has] / unit
        give = sparse(into[kind[has]], np.flatnonzero(has), -room, (limited.size, width))
        algebra.add(name, {"f": take, "x": give}, np.zeros(limited.size), labels)
    number = source * supply.count + target
    capped = [int(n) for n in np.unique(number) if np.isfinite(supply.fabric.flat[n])]
    if capped:
        into = np.searchsorted(capped, number)
        uses = np.isin(number, capped)
        take = sparse(into[uses], flows[uses], load[uses] / unit, (len(capped), flows.size))
        upper = supply.network_share * supply.fabric.flat[capped] / unit
        names = tuple(
            f"{supply.names[n // supply.count]} → {supply.names[n % supply.count]}" for n in capped
        )
        algebra.add("fabric", {"f": take}, np.asarray(upper), names)
