"""Goodput tables of configurations that compete: what cannot win is not evaluated to the end.

The programme keeps, of all configurations of one instance size, the best per count, and drops
larger instances that smaller ones on the same GPUs match (see `reduction`). So a configuration
first has to beat, at their goodput, those before it, which takes one evaluation instead of a
search. Exact where that reduction is, within the tolerance of the search; where it is not,
configurations compete less or not at all (`Rules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.fleet.configurations import Configuration
from bestserve.fleet.stage import ClassLoad, Measure, Stage, stage_goodput
from bestserve.models.system import Routing
from bestserve.solvers.allocation.tables import isotone_per_instance

POOLED_COUNTS = (1, 2, 4, 8, 16)
"""Lane counts at which pooling is simulated; between them goodput per lane is interpolated in
1/√k, beyond the last it stays."""

TIE = 1e-3
"""Gains below this share are none: the tolerance of a goodput search."""

NEAR = 0.9
"""With a limit on distinct configurations a second-best one may serve more recipes: all within
this share of the best of their size are kept. A screen, not a proof."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How configurations compete.

    across : larger instances against smaller ones on the same GPUs; near : share of the best of
    its own size that a configuration has to beat (1: the best) [1]; exempt : [configuration] that
    are kept in any case, because they run today; node : GPUs of a node
    """

    across: bool = True
    near: float = 1.0
    exempt: Sequence[bool] = ()
    node: int = 1


def contest(
    configurations: Sequence[Configuration],
    loads: tuple[ClassLoad, ...],
    gpus: int,
    routing: Routing,
    measure: Measure | None,
    rules: Rules,
) -> list[tuple[int, Floats]]:
    """Return (index, F) of the configurations worth keeping for one mix.

    configurations : of one model, GPU type and role; gpus : of the type; F(k) [req/s] for
    k = 0 … gpus // size, as `Pools.goodput`
    """
    kept: list[tuple[int, Floats]] = []
    best: dict[int, Floats] = {}
    leader: int | None = None
    for size in sorted({c.gpus for c in configurations}):
        most = gpus // size
        beat = np.zeros(most + 1)
        if rules.across:
            beat = _smaller(best, size, most, rules.node)
        members = [i for i, c in enumerate(configurations) if c.gpus == size]
        if leader is not None:
            # What was best at the size before is likely to be best again: first, it prunes most.
            budget = configurations[leader].max_num_batched_tokens
            members.sort(key=lambda i: configurations[i].max_num_batched_tokens != budget)
        top = np.zeros(most + 1)
        for i in members:
            floor = np.maximum(beat, rules.near * top) * (1 + TIE)
            if len(rules.exempt) and rules.exempt[i]:
                floor = np.zeros(most + 1)
            table = _table(configurations[i], loads, most, routing, measure, floor)
            if table is None:
                continue
            kept.append((i, table))
            if table[-1] > top[-1]:
                leader = i
            top = np.maximum(top, table)
        if top.any():
            best[size] = top
    return kept


def _smaller(best: dict[int, Floats], size: int, most: int, node: int) -> Floats:
    """Return the most that smaller instances reach on the GPUs of 0 … most instances of `size`.

    Only sizes that fill the place of a larger instance: divisors of it, and within nodes.
    """
    reach = np.zeros(most + 1)
    for smaller, table in best.items():
        if size % smaller == 0 and (size <= node or node % smaller == 0):
            reach = np.maximum(reach, table[np.arange(most + 1) * (size // smaller)])
    return reach


def _table(
    c: Configuration,
    loads: tuple[ClassLoad, ...],
    most: int,
    routing: Routing,
    measure: Measure | None,
    floor: Floats,
) -> Floats | None:
    """Return F(0 … most) of one configuration for one mix; None if it nowhere beats `floor`."""
    k, per = np.arange(most + 1), c.lanes_per_instance

    def rate(lanes: int, least: float, near: float = 0.0) -> float:
        route = routing if lanes > 1 or c.hybrid else "random"
        stage = Stage(c.role, c.lane, lanes, loads, c.transfer, route, c.hybrid)
        if lanes > 1 and measure is not None:
            return measure(stage, near, least)
        return stage_goodput(stage, measure, least)

    if routing == "random":
        alone = rate(1, floor[-1] / max(most * per, 1))
        return np.asarray(alone * per * k, dtype=np.float64) if alone > 0 else None
    counts = [n for n in POOLED_COUNTS if n < 2 * most * per]
    if floor.any():
        # One count at which it wins is enough for the whole table to be wanted.
        asked = [float(np.interp(n / per, k, floor)) for n in counts]
        if not any(rate(n, least) > 0 for n, least in zip(counts, asked, strict=True)):
            return None
    found = [rate(1, 0.0)]
    if found[0] <= 0 and len(loads) == 1:
        return None
    for n in counts[1:]:
        found.append(rate(n, 0.0, found[-1] / counts[len(found) - 1] * n))
    slope = np.array(found) / counts
    # Pooling loss falls as 1/√k, so goodput per lane is interpolated on that scale.
    at = 1.0 / np.sqrt(np.maximum(k * per, 1))
    each = np.interp(-at, -1.0 / np.sqrt(np.array(counts)), slope)
    table = isotone_per_instance((each * k * per)[None, :])[0]
    return table if table[-1] > 0 else None
