"""Brute force for allocation problems: every instance count of every pool, tried.

Shares only the tables with the programme. Counts are enumerated per GPU type (pools of a type
compete for its GPUs alone), each vector is mapped to what it can serve per class and role, and
the types are combined by their Cartesian product. Also writes and reads the stored instances.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Demand,
    Pools,
    Requirements,
    Supply,
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


def to_json(tables: Tables, requirements: Requirements) -> dict:
    """Return a problem as plain lists; infinity is written as null."""

    def plain(value: object) -> object:
        if isinstance(value, np.ndarray):
            return plain(value.tolist())
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return None if isinstance(value, float) and np.isinf(value) else value

    return {
        "supply": plain(asdict(tables.supply)),
        "demand": plain(asdict(tables.demand)),
        "pools": plain(asdict(tables.pools)),
        "mixes": plain(tables.mixes),
        "keys": list(tables.keys),
        "requirements": plain(asdict(requirements)),
    }


def from_json(data: dict) -> tuple[Tables, Requirements]:
    """Return the problem that `to_json` wrote."""

    def floats(value: list) -> np.ndarray:
        return np.array(
            [[np.inf if v is None else v for v in row] for row in value]
            if value and isinstance(value[0], list)
            else [np.inf if v is None else v for v in value],
            dtype=np.float64,
        )

    def ints(value: list) -> np.ndarray:
        return np.array(value, dtype=np.int64)

    supply, demand, pools = data["supply"], data["demand"], data["pools"]
    required = dict(data["requirements"])
    required["min_replicas"] = ints(required["min_replicas"])
    required["deployed"] = ints(required["deployed"])
    tables = Tables(
        supply=Supply(
            names=tuple(supply["names"]),
            gpus=ints(supply["gpus"]),
            node_size=ints(supply["node_size"]),
            **{k: floats(supply[k]) for k in ("price", "watts", "nic", "fabric")},
            network_share=supply["network_share"],
        ),
        demand=Demand(
            names=tuple(demand["names"]),
            models=tuple(demand["models"]),
            model=ints(demand["model"]),
            **{k: floats(demand[k]) for k in ("rate", "value", "kv_bytes")},
        ),
        mixes=floats(data["mixes"]),
        pools=Pools(
            **{k: ints(pools[k]) for k in ("gpu", "role", "recipe", "key", "size")},
            goodput=floats(pools["goodput"]),
        ),
        keys=tuple(data["keys"]),
    )
    return tables, Requirements(**required)


def stored(folder: Path) -> list[tuple[str, Tables, Requirements, float]]:
    """Return the stored instances: name, problem, known optimum (nan: infeasible)."""
    found = []
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        best = float("nan") if data["optimum"] is None else float(data["optimum"])
        found.append((path.stem, *from_json(data), best))
    return found


def random_problem(
    seed: int, objective: str, *, noisy: bool = False, side: str = "", straight: float = 0.0
) -> tuple[Tables, Requirements]:
    """Return a random problem small enough for `optimum`.

    One type of 8 GPUs or two of 5 and 4; two or three classes of one or two models; pools of 1, 2
    or 4 GPUs of which about a third is left out; F(k) = μ k (1 − a/√k), with 3 % noise if asked.
    straight : share of the pools with F(k) = k F(1) instead, as random routing gives
    side : "" or one of "configurations", "budget", "replicas", "migration", "network", "packing"
    """
    rng = np.random.default_rng([seed, len(side)])
    gpus = np.array([8]) if rng.random() < 0.5 else np.array([5, 4])
    sizes = [1, 2, 3] if side == "packing" else [1, 2, 4]
    models = int(rng.integers(1, 3))
    model = np.array([0, 0] if models == 1 else [0, 1], dtype=np.int64)
    if models == 2 and rng.random() < 0.3:
        model = np.array([0, 0, 1], dtype=np.int64)
    classes = model.size
    rate = rng.uniform(0.5, 2.0, classes) * (0.6 if objective == "min_cost" else 1.0)
    mixes = [np.eye(classes)[w] for w in range(classes)]
    for m in range(models):
        mine = model == m
        if mine.sum() > 1:
            mixes.append(np.where(mine, rate, 0.0) / rate[mine].sum())
    known = int(gpus.max())
    rows: dict[str, list] = {k: [] for k in ("gpu", "role", "recipe", "key", "size", "goodput")}
    keys: dict[tuple[int, ...], int] = {}
    most = 7 if gpus.size == 1 else 5
    for g in range(gpus.size):
        offers = [
            (role, q, size, config)
            for role in (COLLOCATED, PREFILL, DECODE)
            for q in range(len(mixes))
            for size in sizes
            for config in range(2)
            if size <= gpus[g]
        ]
        rng.shuffle(offers)
        # One collocated pool of every class, so that few problems are trivially impossible; then
        # both stages of one class, so that disaggregation competes; then whatever comes.
        first = [
            next(o for o in offers if o[0] == COLLOCATED and o[1] == w) for w in range(classes)
        ]
        staged = int(rng.integers(len(mixes)))
        first += [
            next(o for o in offers if o[0] == r and o[1] == staged) for r in (PREFILL, DECODE)
        ]
        rest = [o for o in offers if o not in first and rng.random() < 0.65]
        chosen = [o for o in first if rng.random() < 0.9] + rest[: most - len(first)]
        for role, q, size, config in chosen:
            k = np.arange(known + 1)
            speed = rng.uniform(0.3, 1.0) * size ** rng.uniform(0.8, 1.15)
            speed *= 1.0 if role == COLLOCATED else 3.5
            loss = rng.uniform(0.1, 0.7)
            goodput = speed * k * (1 - loss / np.sqrt(np.maximum(k, 1)))
            if straight and rng.random() < straight:
                goodput = speed * k * (1 - loss)
            elif noisy:
                goodput *= 1 + 0.03 * rng.standard_normal(k.size)
            goodput = np.maximum.accumulate(np.where(k > 0, goodput, 0.0))
            which = int(model[np.argmax(mixes[q] > 0)])
            key = keys.setdefault((g, which, role, size, config), len(keys))
            for name, value in zip(rows, (g, role, q, key, size, goodput), strict=True):
                rows[name].append(value)
    bandwidth = rng.uniform(0.2, 3.0, gpus.size) if side == "network" else np.inf
    fabric = np.full((gpus.size, gpus.size), np.inf)
    if side == "network" and gpus.size > 1 and rng.random() < 0.5:
        fabric[0, 1] = rng.choice([0.0, 0.7])
    tables = Tables(
        supply=Supply(
            names=tuple(f"gpu{g}" for g in range(gpus.size)),
            gpus=gpus.astype(np.int64),
            node_size=np.full(gpus.size, 4 if side == "packing" else 8, dtype=np.int64),
            price=rng.uniform(1.0, 4.0, gpus.size),
            watts=rng.uniform(300.0, 1000.0, gpus.size),
            nic=np.broadcast_to(bandwidth, gpus.shape).astype(np.float64),
            fabric=fabric,
        ),
        demand=Demand(
            names=tuple(f"class{w}" for w in range(classes)),
            models=tuple(f"model{m}" for m in range(models)),
            model=model,
            rate=rate,
            value=rng.uniform(0.5, 2.0, classes),
            kv_bytes=rng.uniform(0.2, 1.5, classes),
        ),
        mixes=np.array(mixes),
        pools=Pools(
            **{k: np.array(rows[k], dtype=np.int64) for k in rows if k != "goodput"},
            goodput=np.array(rows["goodput"]),
        ),
        keys=tuple(" ".join(map(str, k)) for k in keys),
    )
    return tables, _random_requirements(rng, tables, objective, side)


def _random_requirements(
    rng: np.random.Generator, tables: Tables, objective: str, side: str
) -> Requirements:
    """Return requirements with the side constraint asked for."""
    total = int(tables.supply.gpus.sum())
    cost = float(tables.supply.gpus @ tables.supply.price)
    watts = float(tables.supply.gpus @ tables.supply.watts)
    if side == "configurations":
        return Requirements(objective=objective, max_configurations=int(rng.integers(1, 4)))
    if side == "budget":
        return Requirements(
            objective=objective,
            max_gpus=int(rng.integers(total // 2, total + 1)),
            max_cost=float(rng.uniform(0.5, 1.0) * cost),
            max_watts=float(rng.uniform(0.5, 1.0) * watts),
        )
    if side == "replicas":
        fewest = rng.integers(1, 4, len(tables.demand.models))
        return Requirements(objective=objective, min_replicas=fewest)
    if side == "migration":
        deployed = np.where(rng.random(len(tables.keys)) < 0.4, rng.integers(1, 3), 0)
        limit = int(rng.integers(1, total)) if rng.random() < 0.6 else None
        return Requirements(
            objective=objective,
            deployed=deployed.astype(np.int64),
            start_price=float(rng.uniform(0.0, 2.0)),
            max_started_gpus=limit,
        )
    return Requirements(objective=objective)
