"""Brute force for allocation problems: every instance count of every pool, tried.

Shares only the tables with the programme. Counts are enumerated per GPU type (pools of a type
compete for its GPUs alone), each vector is mapped to what it can serve per class and role, and
the types are combined by their Cartesian product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Requirements,
    Tables,
)

MOST_COMBINATIONS = 20_000_000


@dataclass(frozen=True, slots=True)
class Vectors:
    """All count vectors of one GPU type [v], and what each brings and uses.

    serve : [v, role, w]; gpus, cost, watts, keys (configurations), started : [v]
    """

    counts: np.ndarray
    serve: np.ndarray
    gpus: np.ndarray
    cost: np.ndarray
    watts: np.ndarray
    keys: np.ndarray
    started: np.ndarray

    def take(self, rows: np.ndarray) -> Vectors:
        """Return the vectors at `rows`."""
        return Vectors(*(getattr(self, name)[rows] for name in self.__slots__))


def optimum(tables: Tables, requirements: Requirements) -> float:
    """Return the best objective over all plans; nan if no plan satisfies the requirements."""
    types = [_vectors(tables, requirements, g) for g in range(tables.supply.count)]
    side = (
        requirements.max_configurations is not None
        or requirements.migrating
        or tables.supply.networked
    )
    if not side:
        types = [_undominated(v) for v in types]
    total = int(np.prod([v.gpus.size for v in types]))
    if total > MOST_COMBINATIONS:
        raise ValueError(f"{total} combinations are too many for brute force")
    index = np.indices([v.gpus.size for v in types]).reshape(len(types), -1)
    use = {
        name: sum(getattr(v, name)[i] for v, i in zip(types, index, strict=True))
        for name in ("gpus", "cost", "watts", "keys", "started")
    }
    allowed = np.ones(total, dtype=bool)
    for name, limit in (
        ("gpus", requirements.max_gpus),
        ("cost", requirements.max_cost),
        ("watts", requirements.max_watts),
        ("keys", requirements.max_configurations),
        ("started", requirements.max_started_gpus),
    ):
        if limit is not None:
            allowed &= use[name] <= limit * (1 + 1e-9)
    index, cost = index[:, allowed], use["cost"][allowed]
    if tables.supply.networked:
        return _best_networked(tables, requirements, types, index, cost)
    serve = sum(v.serve[i] for v, i in zip(types, index, strict=True))
    served = serve[:, COLLOCATED] + np.minimum(serve[:, PREFILL], serve[:, DECODE])
    return _best(tables, requirements, served, cost)


def _best(
    tables: Tables, requirements: Requirements, served: np.ndarray, cost: np.ndarray
) -> float:
    """Return the best objective given what each combination serves [c, w] and costs [c]."""
    rate = tables.demand.rate
    if cost.size == 0:
        return float("nan")
    if requirements.objective == "max_headroom":
        best = float((served / rate).min(axis=1).max())
        return best if best > 0 else float("nan")
    if requirements.objective == "max_goodput":
        return float((np.minimum(served, rate) @ tables.demand.value).max())
    enough = np.all(served >= rate * (1 - 1e-9), axis=1)
    return float(cost[enough].min()) if enough.any() else float("nan")


def _vectors(tables: Tables, requirements: Requirements, g: int) -> Vectors:
    """Return every feasible count vector of GPU type `g`."""
    pools, supply = tables.pools, tables.supply
    mine = np.flatnonzero(pools.gpu == g)
    fewest = requirements.fewest(tables)
    known = pools.goodput.shape[1] - 1
    counts = np.zeros((1, 0), dtype=np.int64)
    left = np.full(1, supply.gpus[g])
    for p in mine:
        size = int(pools.size[p])
        choices = np.minimum(left // size, known)
        extra = np.where(choices >= fewest[p], choices - fewest[p] + 1, 0)
        repeat = 1 + extra
        row = np.repeat(np.arange(left.size), repeat)
        first = np.cumsum(repeat) - repeat
        step = np.arange(row.size) - first[row]
        k = np.where(step == 0, 0, fewest[p] + step - 1)
        counts = np.concatenate([counts[row], k[:, None]], axis=1)
        left = left[row] - size * k
    fits = _fits(counts, pools.size[mine], int(supply.gpus[g]), int(supply.node_size[g]))
    counts = counts[fits]
    serve = np.zeros((counts.shape[0], 3, tables.demand.count))
    for i, p in enumerate(mine):
        rate = pools.goodput[p, counts[:, i]]
        serve[:, pools.role[p]] += rate[:, None] * tables.mixes[pools.recipe[p]]
    gpus = counts @ pools.size[mine] if mine.size else np.zeros(counts.shape[0], dtype=np.int64)
    keys, place = np.unique(pools.key[mine], return_inverse=True)
    running = np.zeros((counts.shape[0], keys.size), dtype=np.int64)
    size = np.zeros(keys.size, dtype=np.int64)
    for i, at in enumerate(place):
        running[:, at] += counts[:, i]
        size[at] = pools.size[mine[i]]
    fresh = np.maximum(running - requirements.deployed_count(tables)[keys], 0) @ size
    started = fresh if keys.size else np.zeros(counts.shape[0], dtype=np.int64)
    return Vectors(
        counts=counts,
        serve=serve,
        gpus=gpus,
        cost=gpus * supply.price[g] + requirements.start_price * started,
        watts=gpus * supply.watts[g],
        keys=(running > 0).sum(axis=1),
        started=started,
    )


def _fits(counts: np.ndarray, sizes: np.ndarray, gpus: int, node: int) -> np.ndarray:
    """Return which vectors can be placed on nodes, by trying every node filling [v]."""
    nodes = [node] * (gpus // node) + ([gpus % node] if gpus % node else [])
    whole, part = np.divmod(sizes, node)
    reachable = {(0,) * sizes.size}
    for room in nodes:
        step = set()
        for before in reachable:
            for fill in _fillings(part, room):
                step.add(tuple(b + f for b, f in zip(before, fill, strict=True)))
        reachable = step
    # An instance larger than a node takes whole nodes beside its fragment.
    if np.any(whole):
        allowed = []
        for row in counts:
            taken = int(whole @ row)
            rest = [node] * max(gpus // node - taken, 0)
            rest += [gpus % node] if gpus % node else []
            room_ok = taken <= gpus // node
            allowed.append(room_ok and _placed(row * (part > 0), part, rest))
        return np.array(allowed, dtype=bool)
    cover = np.array(sorted(reachable), dtype=np.int64)
    return np.array([bool(np.any(np.all(cover >= row, axis=1))) for row in counts])


def _fillings(part: np.ndarray, room: int) -> list[tuple[int, ...]]:
    """Return every maximal set of fragments in one node."""
    fills: list[tuple[int, ...]] = []

    def extend(i: int, left: int, sofar: tuple[int, ...]) -> None:
        if i == part.size:
            if not any(0 < p <= left for p in part):
                fills.append(sofar)
            return
        most = left // int(part[i]) if part[i] else 0
        for k in range(most + 1):
            extend(i + 1, left - k * int(part[i]), (*sofar, k))

    extend(0, room, ())
    return fills


def _placed(row: np.ndarray, part: np.ndarray, rooms: list[int]) -> bool:
    """Return whether the fragments fit, item by item with backtracking."""
    items = sorted((int(p) for p, k in zip(part, row, strict=True) for _ in range(k)), reverse=True)

    def place(i: int, left: tuple[int, ...]) -> bool:
        if i == len(items):
            return True
        for r in sorted({room for room in left if room >= items[i]}):
            at = left.index(r)
            if place(i + 1, tuple(sorted((*left[:at], r - items[i], *left[at + 1 :])))):
                return True
        return False

    return place(0, tuple(sorted(rooms)))


def _undominated(vectors: Vectors) -> Vectors:
    """Return the vectors that no other matches with at most its GPUs, money and power."""
    good = np.concatenate(
        [
            vectors.serve.reshape(vectors.gpus.size, -1),
            -np.stack([vectors.gpus, vectors.cost, vectors.watts], axis=1),
        ],
        axis=1,
    )
    _, first = np.unique(np.round(good, 12), axis=0, return_index=True)
    vectors, good = vectors.take(first), good[first]
    order = np.argsort(-good.sum(axis=1))
    kept: list[int] = []
    for row in order:
        if not kept or not np.any(np.all(good[kept] >= good[row], axis=1)):
            kept.append(int(row))
    return vectors.take(np.array(kept))


def _best_networked(
    tables: Tables,
    requirements: Requirements,
    types: list[Vectors],
    index: np.ndarray,
    cost: np.ndarray,
) -> float:
    """Return the best objective when links bind: a flow problem per combination, best first."""
    serve = sum(v.serve[i] for v, i in zip(types, index, strict=True))
    ideal = serve[:, COLLOCATED] + np.minimum(serve[:, PREFILL], serve[:, DECODE])
    rate, value = tables.demand.rate, tables.demand.value
    if requirements.objective == "max_headroom":
        bound = (ideal / rate).min(axis=1)
    elif requirements.objective == "max_goodput":
        bound = np.minimum(ideal, rate) @ value
    else:
        bound = np.where(np.all(ideal >= rate * (1 - 1e-9), axis=1), -cost, -np.inf)
    best = -np.inf
    for row in np.argsort(-bound, kind="stable"):
        if bound[row] <= best + 1e-12 or not np.isfinite(bound[row]):
            break
        chosen = [v.take(np.array([i[row]])) for v, i in zip(types, index, strict=True)]
        got = _flow_optimum(tables, requirements, chosen)
        if requirements.objective == "min_cost":
            got = -cost[row] if got >= 1 - 1e-7 else -np.inf
        best = max(best, got)
    if not np.isfinite(best) or (requirements.objective == "max_headroom" and best <= 0):
        return float("nan")
    return abs(best)


def _flow_optimum(tables: Tables, requirements: Requirements, chosen: list[Vectors]) -> float:
    """Return the best headroom or goodput of one combination under network limits."""
    from scipy.optimize import linprog

    supply, demand = tables.supply, tables.demand
    n, w = supply.count, demand.count
    single = requirements.objective != "max_goodput"
    goals = 1 if single else w
    flow = np.arange(n * n * w).reshape(n, n, w)
    width = flow.size + goals
    rows, upper = [], []
    collocated = sum(v.serve[0, COLLOCATED] for v in chosen)
    for c in range(w):
        line = np.zeros(width)
        line[flow[:, :, c].ravel()] = -1.0
        line[flow.size + (0 if single else c)] = demand.rate[c] if single else 1.0
        rows.append(line)
        upper.append(collocated[c])
        for g in range(n):
            for axis, role in ((flow[g, :, c], PREFILL), (flow[:, g, c], DECODE)):
                line = np.zeros(width)
                line[axis] = 1.0
                rows.append(line)
                upper.append(chosen[g].serve[0, role, c])
    for g in range(n):
        mine = np.flatnonzero(tables.pools.gpu == g)
        for part, role in ((flow[g], PREFILL), (flow[:, g], DECODE)):
            if np.isfinite(supply.nic[g]):
                line = np.zeros(width)
                line[part.ravel()] = np.tile(demand.kv_bytes, n)
                on = tables.pools.role[mine] == role
                cards = float(chosen[g].counts[0] @ (tables.pools.size[mine] * on))
                rows.append(line)
                upper.append(supply.network_share * supply.nic[g] * cards)
        for h in range(n):
            if np.isfinite(supply.fabric[g, h]):
                line = np.zeros(width)
                line[flow[g, h]] = demand.kv_bytes
                rows.append(line)
                upper.append(supply.network_share * supply.fabric[g, h])
    cost = np.zeros(width)
    cost[flow.size :] = -1.0 if single else -demand.value
    goal = [(0, None)] if single else [(0, r) for r in demand.rate]
    bounds = [(0, None)] * flow.size + goal
    result = linprog(cost, A_ub=np.array(rows), b_ub=upper, bounds=bounds, method="highs")
    return float(-result.fun) if result.status == 0 else -np.inf
