"""Uniform strategies: what ranking each GPU type and dividing the GPUs would give.

Every model gets one configuration per GPU type, the one with the highest goodput per GPU for the
model's full mix, collocated or with prefill and decode on the same type; the GPUs are divided
among the models optimally. A generous baseline: the division itself is solved, not guessed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bestserve.arrays import Ints
from bestserve.solvers.allocation.found import Found
from bestserve.solvers.allocation.highs import Options, Stop
from bestserve.solvers.allocation.search import search
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    DECODE,
    PREFILL,
    Requirements,
    Tables,
)

LAYOUTS = {"collocated": (COLLOCATED,), "disaggregated": (PREFILL, DECODE)}


def uniform_pools(tables: Tables, layout: str) -> Ints:
    """Return the rows of `tables.pools` that a uniform strategy of this layout may use."""
    pools, demand = tables.pools, tables.demand
    full = {}
    for m in range(len(demand.models)):
        mine = demand.model == m
        whole = np.all((tables.mixes > 0) == mine[None, :], axis=1)
        if whole.any():
            full[m] = int(np.argmax(whole))
    rows = []
    most = np.maximum(tables.supply.gpus[pools.gpu] // pools.size, 1)
    most = np.minimum(most, pools.goodput.shape[1] - 1)
    per_gpu = pools.goodput[np.arange(pools.count), most] / (most * pools.size)
    for recipe in full.values():
        for g in range(tables.supply.count):
            for role in LAYOUTS[layout]:
                mine = (pools.recipe == recipe) & (pools.gpu == g) & (pools.role == role)
                candidates = np.flatnonzero(mine & (per_gpu > 0))
                if candidates.size:
                    rows.append(int(candidates[np.argmax(per_gpu[candidates])]))
    return np.array(rows, dtype=np.int64)


def best_uniform(
    tables: Tables,
    requirements: Requirements,
    layout: str,
    options: Options | None = None,
    *,
    stop: Stop | None = None,
) -> Found | None:
    """Return the best uniform strategy of a layout; None if no configuration serves full mixes.

    The plan's rows refer to `tables`.
    """
    rows = uniform_pools(tables, layout)
    if rows.size == 0:
        return None
    fabric = tables.supply.fabric.copy()
    fabric[~np.eye(tables.supply.count, dtype=bool)] = 0.0
    few = replace(tables.with_supply(fabric=fabric), pools=tables.pools.take(rows))
    options = options or Options(gap=1e-3, seconds=20.0)
    found = search(few, requirements, options, stop=stop)
    if found.plan is None:
        return found
    return replace(found, plan=replace(found.plan, pool=rows[found.plan.pool]))
