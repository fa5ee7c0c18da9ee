"""Write the stored instances: hand-made ones with an optimum by argument, random ones by oracle.

    python solvers/make_instances.py

The optimum of a hand-made instance is the number in its note's argument; the oracle must agree,
or nothing is written.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from allocation_oracle import optimum
from allocation_problems import random_problem, to_json

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

FOLDER = Path(__file__).parent / "instances"


def tables(
    gpus: list[int],
    pools: list[tuple],
    rate: list[float],
    *,
    node: int = 8,
    price: list[float] | None = None,
    mixes: list[list[float]] | None = None,
    nic: float = np.inf,
    kv: list[float] | None = None,
    models: list[int] | None = None,
) -> Tables:
    """Return tables from (type, role, recipe, size, [F(1), F(2), …]) rows."""
    known = max(len(p[4]) for p in pools)
    goodput = np.zeros((len(pools), known + 1))
    for i, p in enumerate(pools):
        goodput[i, 1 : len(p[4]) + 1] = p[4]
        goodput[i, len(p[4]) + 1 :] = p[4][-1]
    types, classes = len(gpus), len(rate)
    model = np.array(models or [0] * classes, dtype=np.int64)
    columns = list(zip(*[p[:4] for p in pools], strict=True))
    return Tables(
        supply=Supply(
            names=tuple(f"gpu{g}" for g in range(types)),
            gpus=np.array(gpus, dtype=np.int64),
            node_size=np.full(types, node, dtype=np.int64),
            price=np.array(price or [1.0] * types),
            watts=np.full(types, 500.0),
            nic=np.full(types, nic),
            fabric=np.full((types, types), np.inf),
        ),
        demand=Demand(
            names=tuple(f"class{w}" for w in range(classes)),
            models=tuple(f"model{m}" for m in range(int(model.max()) + 1)),
            model=model,
            rate=np.array(rate, dtype=np.float64),
            value=np.ones(classes),
            kv_bytes=np.array(kv or [1.0] * classes),
        ),
        mixes=np.array(mixes) if mixes else np.eye(classes),
        pools=Pools(
            gpu=np.array(columns[0]),
            role=np.array(columns[1]),
            recipe=np.array(columns[2]),
            size=np.array(columns[3]),
            key=np.arange(len(pools)),
            goodput=goodput,
        ),
        keys=tuple(f"pool{i}" for i in range(len(pools))),
    )


def by_hand() -> list[tuple[str, str, Tables, Requirements, float]]:
    """Return (name, argument, problem, optimum)."""
    c, p, d = COLLOCATED, PREFILL, DECODE
    line = [1.0, 2.0, 3.0, 4.0]
    pooling = [1.0, 2.2, 3.6, 5.2]
    two_stages = [(0, p, 0, 1, [3.0, 6.0, 9.0, 12.0]), (0, d, 0, 1, line)]
    odd_sizes = tables([24], [(0, c, 0, 3, [float(k) for k in range(1, 9)])], [1.0])
    mixed = tables(
        [4],
        [(0, c, 0, 1, line), (0, c, 1, 1, line), (0, c, 2, 1, [1.5, 3.2, 4.9, 6.8])],
        [1.0, 1.0],
        mixes=[[1, 0], [0, 1], [0.5, 0.5]],
    )
    linked = tables(
        [4], [*two_stages, (0, c, 0, 1, [0.5, 1.0, 1.5, 2.0])], [1.0], nic=0.0, kv=[1.0]
    )
    shared = tables(
        [2, 2],
        [(0, c, 0, 1, line), (1, c, 0, 1, line), (0, c, 1, 2, [3.0]), (1, c, 1, 2, [3.0])],
        [1.0, 1.0],
        price=[1.0, 3.0],
        models=[0, 1],
    )
    head, cost, good = (
        Requirements(objective=o) for o in ("max_headroom", "min_cost", "max_goodput")
    )
    started = replace(cost, deployed=np.array([0, 1, 0, 0]), start_price=5.0)
    return [
        (
            "pooling",
            "one pool of 4 carries 5.2 alone",
            tables([4], [(0, c, 0, 1, pooling)], [1.0]),
            head,
            5.2,
        ),
        (
            "two-stages",
            "1 prefill (3) feeds 3 decodes (3)",
            tables([4], two_stages, [1.0]),
            head,
            3.0,
        ),
        (
            "odd-sizes",
            "a node of 8 holds two instances of 3: 6, not 24/3 = 8",
            odd_sizes,
            head,
            6.0,
        ),
        ("mixed-recipe", "mixed: 6.8 / 2 each; apart: 2 each", mixed, head, 3.4),
        ("no-network", "nothing moves without a network: collocated only", linked, head, 2.0),
        (
            "cheapest",
            "model 0 on one cheap GPU would leave one, model 1 needs both of a type: 2·1 + 1·3",
            shared,
            cost,
            5.0,
        ),
        ("limited", "demand 1 each is served in full by 1 + 2 GPUs", shared, good, 2.0),
        (
            "unserved",
            "two GPUs serve one model or the other, not both: 1",
            replace_supply(shared, [2, 0]),
            good,
            1.0,
        ),
        (
            "infeasible",
            "model 1 needs two GPUs of one type",
            replace_supply(shared, [1, 1]),
            cost,
            math.nan,
        ),
        (
            "deployed",
            "keeping gpu1's instance (3) and starting 2 cheap GPUs (2 + 10): 15",
            shared,
            started,
            15.0,
        ),
        (
            "configurations",
            "one configuration serves only one of two models",
            shared,
            replace(cost, max_configurations=1),
            math.nan,
        ),
        (
            "replicas",
            "two replicas of model 0 on gpu1 (6), model 1 on gpu0 (2)",
            shared,
            replace(cost, min_replicas=np.array([2, 1])),
            8.0,
        ),
    ]


def replace_supply(problem: Tables, gpus: list[int]) -> Tables:
    return problem.with_supply(gpus=np.array(gpus, dtype=np.int64))


def write(name: str, note: str, problem: Tables, required: Requirements, best: float) -> None:
    data = to_json(problem, required)
    data |= {"note": note, "optimum": None if math.isnan(best) else best}
    (FOLDER / f"{name}.json").write_text(json.dumps(data) + "\n")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, note, problem, required, best in by_hand():
        found = optimum(problem, required)
        if not (math.isnan(best) and math.isnan(found)) and not math.isclose(best, found):
            raise SystemExit(f"{name}: by argument {best}, by enumeration {found}")
        write(f"hand-{name}", note, problem, required, best)
    sides = ("", "configurations", "budget", "replicas", "migration", "network", "packing")
    for i, side in enumerate(sides):
        for j, objective in enumerate(("max_headroom", "min_cost", "max_goodput")):
            problem, required = random_problem(900 + 10 * i + j, objective, noisy=True, side=side)
            note = f"random, {side or 'no'} side constraint; optimum by enumeration"
            best = optimum(problem, required)
            write(f"random-{side or 'plain'}-{objective}", note, problem, required, best)


if __name__ == "__main__":
    main()
