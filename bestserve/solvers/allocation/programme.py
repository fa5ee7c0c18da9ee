"""The multiple-choice formulation: one binary per (pool, instance count).

Variables
    x_j ∈ {0, 1}    column j = (pool p, count k) is chosen; where F(k) = k F(1), one column with
                    k = 1 and x_j ∈ {0 … K} says the same
    f ≥ 0           rate of a class that goes from prefill on one GPU type to decode on another,
                    in units of the class's cap
    t               served share of the cap: one number ("max_headroom") or one per class
    n, u, v         node patterns, configurations in use, GPUs started on deployed configurations

With F(k)/k rising, every locally ideal formulation has the same relaxation, so the plainest one
that is exact for any F is used; what makes it scale is the reduction, the caps and the proof.
Rates are scaled by the caps, so that coefficients are of order one beside the 1e-6 tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bestserve.solvers.allocation.algebra import Algebra, Compiled, Variable, compile_model
from bestserve.solvers.allocation.packing import fragments, is_chain, maximal_patterns
from bestserve.solvers.allocation.reduction import Reduced
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Requirements,
    Tables,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOLERANCE = 1e-6
"""HiGHS's feasibility tolerance: shares of a cap closer to 1 than this are 1."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What can be chosen, one row each [j].

    pool : row of the reduced pools; count : instances; goodput : F(count) [req/s]
    high : how often the column can be taken: once, or up to the pool's most where it stands for
    any number of instances
    """

    pool: Ints
    count: Ints
    goodput: Floats
    high: Floats

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """Whether a column may be taken several times [j]."""
        return self.high > 1

    def instances(self, x: Floats) -> tuple[Ints, Ints]:
        """Return the columns taken in a point `x` [j], and the instances that each stands for."""
        times = np.rint(x).astype(np.int64)
        taken = np.flatnonzero(times > 0)
        return taken, np.asarray(self.count[taken] * times[taken], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Programme:
    """A stated programme: its algebra, its matrices, and what its columns mean.

    sign : objective = sign · scale · (minimised value)
    """

    algebra: Algebra
    compiled: Compiled
    columns: Columns
    sign: float
    scale: float

    def objective(self, minimised: float) -> float:
        """Return the objective in the user's units from the minimised value."""
        return self.sign * self.scale * minimised

    def minimised(self, objective: float) -> float:
        """Return the minimised value of an objective in the user's units."""
        return self.sign * objective / self.scale


def choices(reduced: Reduced) -> Columns:
    """Return one column per pool and allowed instance count; one for all where F is linear."""
    single = reduced.linear & (reduced.fewest == 1)
    lengths = np.where(single, 1, reduced.most - reduced.fewest + 1)
    pool = np.repeat(np.arange(reduced.count), lengths)
    first = np.cumsum(lengths) - lengths
    count = np.arange(lengths.sum()) - np.repeat(first - reduced.fewest, lengths)
    high = np.where(single, reduced.most, 1)[pool].astype(np.float64)
    return Columns(pool, count, reduced.goodput[pool, count], high)


def slopes(reduced: Reduced, per_instance: Floats) -> Columns:
    """Return one continuous column per pool that brings `per_instance` each [req/s]."""
    pool = np.arange(reduced.count)
    one = np.ones(reduced.count, dtype=np.int64)
    return Columns(pool, one, per_instance, reduced.most.astype(np.float64))


def state(
    tables: Tables,
    requirements: Requirements,
    reduced: Reduced,
    columns: Columns,
    cap: Floats,
    *,
    linear: bool = False,
    cost_scale: float = 1.0,
) -> Programme:
    """State the programme; `linear` makes instance counts continuous up to each pool's most.

    cap : the most of each class that any plan can use [w, req/s]
    """
    algebra = state_algebra(tables, requirements, reduced, columns, cap, linear, cost_scale)
    if requirements.objective == "max_headroom":
        sign, scale = -1.0, float(cap[0] / tables.demand.rate[0])
    elif requirements.objective == "max_goodput":
        sign, scale = -1.0, float(tables.demand.value @ tables.demand.rate)
    else:
        sign, scale = 1.0, cost_scale
    return Programme(algebra, compile_model(algebra), columns, sign, scale)


def state_algebra(
    tables: Tables,
    requirements: Requirements,
    reduced: Reduced,
    columns: Columns,
    cap: Floats,
    linear: bool,
    cost_scale: float,
) -> Algebra:
    """Return the blocks of the programme."""
    algebra = Algebra()
    algebra.variables["x"] = Variable(columns.high, "continuous" if linear else "integer")
    gpus = (reduced.size[columns.pool] * columns.count).astype(np.float64)
    _choose(algebra, tables, requirements, reduced, columns)
    _gpu_rows(algebra, tables, requirements, reduced, columns, gpus)
    _packing_rows(algebra, tables, reduced, columns)
    charge = _migration(algebra, tables, requirements, reduced, columns, gpus)
    _flows(algebra, tables, requirements, reduced, columns, cap, gpus)
    price = tables.supply.price[reduced.gpu[columns.pool]] * gpus + charge
    started = {"v": np.full((1, algebra.variables["v"].high.size), requirements.start_price)}
    if requirements.max_cost is not None:
        terms = {"x": price[None, :], **started}
        algebra.add("cost budget", terms, np.array([requirements.max_cost]), ("$/h",))
    if requirements.objective == "min_cost":
        algebra.cost["x"] = price / cost_scale
        algebra.cost["v"] = started["v"][0] / cost_scale
    return algebra


def _choose(
    algebra: Algebra,
    tables: Tables,
    requirements: Requirements,
    reduced: Reduced,
    columns: Columns,
) -> None:
    """One size per pool, and at most so many configurations."""
    width = columns.pool.size
    names = tuple(f"pool {p}" for p in range(reduced.count))
    member = _sparse(columns.pool, np.arange(width), np.ones(width), (reduced.count, width))
    room = np.ones(reduced.count)
    np.maximum.at(room, columns.pool, columns.high)
    if requirements.max_configurations is None:
        several = np.flatnonzero(room == 1)
        labels = tuple(names[p] for p in several)
        algebra.add("one size", {"x": member[several]}, np.ones(several.size), labels)
        return
    keys, used = np.unique(pool_keys(tables, reduced), return_inverse=True)
    algebra.variables["u"] = Variable(np.ones(keys.size), "binary")
    switch = _sparse(np.arange(reduced.count), used, -room, (reduced.count, keys.size))
    terms = {"x": member, "u": switch}
    algebra.add("configuration in use", terms, np.zeros(reduced.count), names)
    limit = np.array([float(requirements.max_configurations)])
    algebra.add("configurations", {"u": np.ones((1, keys.size))}, limit, ("configurations",))


def _gpu_rows(
    algebra: Algebra,
    tables: Tables,
    requirements: Requirements,
    reduced: Reduced,
    columns: Columns,
    gpus: Floats,
) -> None:
    """GPUs of each type, and the budgets in GPUs and watts."""
    supply, width = tables.supply, columns.pool.size
    kind = reduced.gpu[columns.pool]
    rows = _sparse(kind, np.arange(width), gpus, (supply.count, width))
    algebra.add("GPUs", {"x": rows}, supply.gpus.astype(np.float64), supply.names)
    if requirements.max_gpus is not None:
        most = np.array([float(requirements.max_gpus)])
        algebra.add("GPU budget", {"x": gpus[None, :]}, most, ("GPUs",))
    if requirements.max_watts is not None:
        watts = (supply.watts[kind] * gpus)[None, :]
        algebra.add("power budget", {"x": watts}, np.array([requirements.max_watts]), ("W",))


def _packing_rows(algebra: Algebra, tables: Tables, reduced: Reduced, columns: Columns) -> None:
    """Node patterns for the GPU types whose instance sizes are no divisibility chain."""
    blocks: list[tuple[int, int, Ints, list[int], int]] = []
    for g, node in enumerate(tables.supply.node_size):
        sizes = np.unique(reduced.size[reduced.gpu == g]).tolist()
        if sizes and not is_chain(sizes, int(node)):
            parts = sorted({fragments(s, int(node))[1] for s in sizes} - {0})
            nodes, rest = divmod(int(tables.supply.gpus[g]), int(node))
            blocks.append((g, int(node), maximal_patterns(parts, int(node)), parts, nodes))
            if rest >= parts[0]:
                blocks.append((g, int(node), maximal_patterns(parts, rest), parts, -1))
    if not blocks:
        return
    high = np.concatenate([np.full(len(b[2]), b[4] if b[4] >= 0 else 1) for b in blocks])
    algebra.variables["n"] = Variable(high.astype(np.float64), "integer")
    first = np.cumsum([0] + [len(b[2]) for b in blocks])
    width, total = columns.pool.size, int(first[-1])
    for g in sorted({b[0] for b in blocks}):
        mine = [(first[i], b) for i, b in enumerate(blocks) if b[0] == g]
        node, parts, nodes = mine[0][1][1], mine[0][1][3], mine[0][1][4]
        on_g = reduced.gpu[columns.pool] == g
        whole, part = np.divmod(reduced.size[columns.pool], node)
        need = np.stack([np.where(on_g & (part == s), columns.count, 0) for s in parts])
        give = np.zeros((len(parts), total))
        for begin, block in mine:
            give[:, begin : begin + len(block[2])] = block[2].T
        name = tables.supply.names[g]
        labels = tuple(f"{name} fragments of {s}" for s in parts)
        terms = {"x": _sparse_of(need), "n": -give}
        algebra.add(f"packing {name}", terms, np.zeros(len(parts)), labels)
        for begin, block in mine:
            use = np.zeros((1, total))
            use[0, begin : begin + len(block[2])] = 1.0
            if block[4] >= 0:
                taken = _sparse_of(np.where(on_g, whole * columns.count, 0)[None, :])
                upper = np.array([float(nodes)])
                algebra.add(f"nodes {name}", {"x": taken, "n": use}, upper, (name,))
            else:
                algebra.add(f"last node {name}", {"n": use}, np.ones(1), (name,))
        assert width == need.shape[1]


def _migration(
    algebra: Algebra,
    tables: Tables,
    requirements: Requirements,
    reduced: Reduced,
    columns: Columns,
    gpus: Floats,
) -> Floats:
    """Count GPUs that start; return the charge that each column carries by itself [j, $/h]."""
    algebra.variables["v"] = Variable(np.zeros(0))
    if not requirements.migrating:
        return np.zeros(columns.pool.size)
    deployed = requirements.deployed_count(tables)
    key = pool_keys(tables, reduced)[columns.pool]
    fresh = deployed[key] == 0
    width = columns.pool.size
    keys = np.unique(key[~fresh])
    sizes = {int(k): int(tables.pools.size[tables.pools.key == k][0]) for k in keys}
    running = np.array([float(sizes[int(k)] * deployed[k]) for k in keys])
    algebra.variables["v"] = Variable(np.full(keys.size, np.inf))
    at = np.searchsorted(keys, key[~fresh])
    rows = _sparse(at, np.flatnonzero(~fresh), gpus[~fresh], (keys.size, width))
    labels = tuple(tables.keys[int(k)] for k in keys)
    algebra.add("started", {"x": rows, "v": -np.eye(keys.size)}, running, labels)
    if requirements.max_started_gpus is not None:
        terms = {"x": np.where(fresh, gpus, 0.0)[None, :], "v": np.ones((1, keys.size))}
        upper = np.array([float(requirements.max_started_gpus)])
        algebra.add("started GPUs", terms, upper, ("GPUs",))
    return np.where(fresh, requirements.start_price * gpus, 0.0)


def _flows(
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
        give = _sparse(rows, at[inside], -value[inside], (needed.size, width))
        into = np.searchsorted(needed, end * demand.count + of)
        take = _sparse(into, flows, np.ones(flows.size), (needed.size, flows.size))
        labels = tuple(
            (f"{supply.names[n // demand.count]}: " if supply.networked else "")
            + demand.names[n % demand.count]
            for n in needed
        )
        terms = {"f": take, "x": give}
        algebra.add(f"{('', 'prefill', 'decode')[side]} rate", terms, np.zeros(needed.size), labels)
    served = (share * (role == COLLOCATED)[:, None]).T
    arriving = _sparse(of, flows, np.ones(flows.size), (demand.count, flows.size))
    terms = {"x": -_sparse_of(served), "f": -arriving}
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
        take = _sparse(into[end[uses]], flows[uses], load[uses] / unit, (limited.size, flows.size))
        has = (role == side) & (into[kind] >= 0)
        room = supply.network_share * supply.nic[kind[has]] * gpus[has] / unit
        give = _sparse(into[kind[has]], np.flatnonzero(has), -room, (limited.size, width))
        algebra.add(name, {"f": take, "x": give}, np.zeros(limited.size), labels)
    number = source * supply.count + target
    capped = [int(n) for n in np.unique(number) if np.isfinite(supply.fabric.flat[n])]
    if capped:
        into = np.searchsorted(capped, number)
        uses = np.isin(number, capped)
        take = _sparse(into[uses], flows[uses], load[uses] / unit, (len(capped), flows.size))
        upper = supply.network_share * supply.fabric.flat[capped] / unit
        names = tuple(
            f"{supply.names[n // supply.count]} → {supply.names[n % supply.count]}" for n in capped
        )
        algebra.add("fabric", {"f": take}, np.asarray(upper), names)


def pool_keys(tables: Tables, reduced: Reduced) -> Ints:
    """Return the configuration of each reduced pool at its largest count [p]."""
    source = reduced.source[np.arange(reduced.count), reduced.most]
    return tables.pools.key[source]


def _sparse(rows: Ints, columns: Ints, values: Floats, shape: tuple[int, int]) -> Any:
    """Return a sparse matrix from triplets."""
    import scipy.sparse as sp

    return sp.csr_array((values, (rows, columns)), shape=shape)


def _sparse_of(dense: Any) -> Any:
    """Return a dense matrix as a sparse one."""
    import scipy.sparse as sp

    return sp.csr_array(np.asarray(dense, dtype=np.float64))
