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

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.solvers.allocation.algebra import (
    Algebra,
    Compiled,
    Variable,
    compile_model,
    sparse,
    sparse_of,
)
from bestserve.solvers.allocation.columns import Columns
from bestserve.solvers.allocation.flows import add_flows
from bestserve.solvers.allocation.packing import fragments, is_chain, maximal_patterns
from bestserve.solvers.allocation.reduction import Reduced
from bestserve.solvers.allocation.tables import (
    Requirements,
    Tables,
)


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
    add_flows(algebra, tables, requirements, reduced, columns, cap, gpus)
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
    member = sparse(columns.pool, np.arange(width), np.ones(width), (reduced.count, width))
    room = np.ones(reduced.count)
    np.maximum.at(room, columns.pool, columns.high)
    if requirements.max_configurations is None:
        several = np.flatnonzero(room == 1)
        labels = tuple(names[p] for p in several)
        algebra.add("one size", {"x": member[several]}, np.ones(several.size), labels)
        return
    keys, used = np.unique(pool_keys(tables, reduced), return_inverse=True)
    algebra.variables["u"] = Variable(np.ones(keys.size), "binary")
    switch = sparse(np.arange(reduced.count), used, -room, (reduced.count, keys.size))
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
    rows = sparse(kind, np.arange(width), gpus, (supply.count, width))
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
        terms = {"x": sparse_of(need), "n": -give}
        algebra.add(f"packing {name}", terms, np.zeros(len(parts)), labels)
        for begin, block in mine:
            use = np.zeros((1, total))
            use[0, begin : begin + len(block[2])] = 1.0
            if block[4] >= 0:
                taken = sparse_of(np.where(on_g, whole * columns.count, 0)[None, :])
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
    rows = sparse(at, np.flatnonzero(~fresh), gpus[~fresh], (keys.size, width))
    labels = tuple(tables.keys[int(k)] for k in keys)
    algebra.add("started", {"x": rows, "v": -np.eye(keys.size)}, running, labels)
    if requirements.max_started_gpus is not None:
        terms = {"x": np.where(fresh, gpus, 0.0)[None, :], "v": np.ones((1, keys.size))}
        upper = np.array([float(requirements.max_started_gpus)])
        algebra.add("started GPUs", terms, upper, ("GPUs",))
    return np.where(fresh, requirements.start_price * gpus, 0.0)


def pool_keys(tables: Tables, reduced: Reduced) -> Ints:
    """Return the configuration of each reduced pool at its largest count [p]."""
    source = reduced.source[np.arange(reduced.count), reduced.most]
    return tables.pools.key[source]
