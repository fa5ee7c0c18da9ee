"""Small allocation problems: random ones, and how stored ones are written and read."""

from __future__ import annotations

import json
from dataclasses import asdict
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
