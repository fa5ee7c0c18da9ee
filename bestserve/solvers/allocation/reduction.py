"""Fewer pools with the same optimum: merge configurations, drop dominated sizes.

Both steps are exact, and each is applied only where its argument holds:

* *Envelope*: pools that differ in the engine configuration alone become one pool with
  F*(k) = max F(k) that remembers the best configuration per k. Running two of them side by side
  must not beat one: holds if F*(j) + F*(k) ≤ F*(j + k), which is checked, up to all GPUs of the
  type. Not done when the number of configurations is limited (the second best may then be
  shared), nor for configurations that run today when starting others is charged.
* *Dominance across sizes*: a pool of larger instances goes if smaller instances on the same GPUs
  reach its goodput at every count. Same GPU type, role and recipe; more instances than before, so
  replica minima still hold. The smaller must be superadditive as above, and sizes must pack as a
  chain. Not done when configurations are limited or deployed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Bools, Floats, Ints
from bestserve.solvers.allocation.packing import is_chain
from bestserve.solvers.allocation.tables import Requirements, Tables

SLACK = 1e-9
"""Relative difference of goodputs below which two tables count as equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """Pools after reduction, one row each [p].

    goodput : [p, K + 1] clipped at the caps [req/s]; source : [p, K + 1] row of
    `Tables.pools` that reaches it; most, fewest : instance counts allowed (0 is always) [p]
    pooling : whether one pool never does less than the same instances in two [p]
    linear : whether k instances do k times what one does, before any cap [p]
    """

    gpu: Ints
    role: Ints
    recipe: Ints
    size: Ints
    goodput: Floats
    source: Ints
    most: Ints
    fewest: Ints
    pooling: Bools
    linear: Bools

    @property
    def count(self) -> int:
        """Number of pools left."""
        return int(self.gpu.size)

    def take(self, rows: Ints | Bools) -> Reduced:
        """Return the pools at `rows`."""
        return Reduced(**{name: getattr(self, name)[rows] for name in self.__slots__})


def from_tables(tables: Tables, requirements: Requirements) -> Reduced:
    """Return the pools unreduced: as many instances as the GPUs of the type allow."""
    pools = tables.pools
    known = pools.goodput.shape[1] - 1
    reach = tables.supply.gpus[pools.gpu] // pools.size
    most = np.minimum(reach, known)
    pooling = np.array(
        [
            reach[p] <= known and _superadditive(pools.goodput[p, : most[p] + 1])
            for p in range(pools.count)
        ],
        dtype=bool,
    )
    k = np.arange(known + 1)
    straight = np.abs(pools.goodput - pools.goodput[:, 1:2] * k) <= SLACK * pools.goodput[:, -1:]
    linear = np.all(straight | (k[None, :] > most[:, None]), axis=1) if known else pooling
    live = (most > 0) & (pools.goodput[np.arange(pools.count), most] > 0)
    reduced = Reduced(
        gpu=pools.gpu,
        role=pools.role,
        recipe=pools.recipe,
        size=pools.size,
        goodput=pools.goodput,
        source=np.broadcast_to(np.arange(pools.count)[:, None], pools.goodput.shape),
        most=most,
        fewest=requirements.fewest(tables),
        pooling=pooling,
        linear=linear,
    )
    return reduced.take(live & (reduced.fewest <= most))


def reduce_configurations(reduced: Reduced, tables: Tables, requirements: Requirements) -> Reduced:
    """Return the pools with configurations merged where that is exact."""
    if requirements.max_configurations is not None:
        return reduced
    protected = _protected(reduced, tables, requirements)
    alone = np.where(protected, np.arange(reduced.count) + 1, 0)
    groups = np.stack([reduced.gpu, reduced.role, reduced.recipe, reduced.size, alone])
    order = np.lexsort(groups)
    changed = np.any(np.diff(groups[:, order], axis=1) != 0, axis=0)
    members = np.split(order, np.flatnonzero(changed) + 1)
    known = reduced.goodput.shape[1] - 1
    kept, goodput, source, pooling, linear = [], [], [], [], []
    for rows in members:
        winner = rows[np.argmax(reduced.goodput[rows], axis=0)]
        columns = np.arange(winner.size)
        best = reduced.goodput[winner, columns]
        reach = int(tables.supply.gpus[reduced.gpu[rows[0]]] // reduced.size[rows[0]])
        merges = reach <= known and _superadditive(best[: reach + 1])
        if rows.size == 1 or merges:
            kept.append(rows[:1])
            goodput.append(best[None, :])
            source.append(reduced.source[winner, columns][None, :])
            pooling.append(reduced.pooling[rows] if rows.size == 1 else np.ones(1, dtype=bool))
            linear.append(np.array([bool(np.all(reduced.linear[rows]))]))
        else:
            kept.append(rows)
            goodput.append(reduced.goodput[rows])
            source.append(reduced.source[rows])
            pooling.append(reduced.pooling[rows])
            linear.append(reduced.linear[rows])
    if not kept:
        return reduced
    first = np.concatenate(kept)
    return Reduced(
        gpu=reduced.gpu[first],
        role=reduced.role[first],
        recipe=reduced.recipe[first],
        size=reduced.size[first],
        goodput=np.concatenate(goodput),
        source=np.concatenate(source),
        most=reduced.most[first],
        fewest=reduced.fewest[first],
        pooling=np.concatenate(pooling),
        linear=np.concatenate(linear),
    )


def drop_dominated(reduced: Reduced, tables: Tables, requirements: Requirements) -> Reduced:
    """Return the pools without those that smaller instances on the same GPUs match."""
    if requirements.max_configurations is not None:
        return reduced
    protected = _protected(reduced, tables, requirements)
    groups: dict[tuple[int, int, int], list[int]] = {}
    for p in range(reduced.count):
        place = (int(reduced.gpu[p]), int(reduced.role[p]), int(reduced.recipe[p]))
        groups.setdefault(place, []).append(p)
    packs = [
        is_chain(np.unique(reduced.size[reduced.gpu == g]).tolist(), int(node))
        for g, node in enumerate(tables.supply.node_size)
    ]
    keep = np.ones(reduced.count, dtype=bool)
    for place, rows in groups.items():
        if not packs[place[0]]:
            continue  # with odd sizes, smaller instances may pack worse than the larger one
        rows.sort(key=lambda p: (reduced.size[p], p))
        for i, large in enumerate(rows):
            if protected[large]:
                continue
            counts = np.arange(1, reduced.most[large] + 1)
            for small in rows[:i]:
                ratio, left = divmod(int(reduced.size[large]), int(reduced.size[small]))
                if left or not keep[small] or not reduced.pooling[small]:
                    continue
                if _matches(reduced, small, large, counts, ratio):
                    keep[large] = False
                    break
    return reduced.take(keep)


def _matches(reduced: Reduced, small: int, large: int, counts: Ints, ratio: int) -> bool:
    """Return whether `ratio` small instances do at least what one large does, at any count."""
    counts = counts[counts >= reduced.fewest[large]]
    # Beyond its own largest count the small pool has reached the cap, so more bring nothing.
    at = np.minimum(counts * ratio, reduced.most[small])
    enough = reduced.goodput[small, at] >= reduced.goodput[large, counts] * (1 - SLACK)
    return bool(np.all(enough))


def _protected(reduced: Reduced, tables: Tables, requirements: Requirements) -> Bools:
    """Return the pools whose configuration runs today while starting others is charged [p]."""
    if not requirements.migrating:
        return np.zeros(reduced.count, dtype=bool)
    running = requirements.deployed_count(tables)[tables.pools.key] > 0
    return np.asarray(np.any(running[reduced.source], axis=1))


def _superadditive(goodput: Floats) -> bool:
    """Return whether one pool of j + k instances never does less than two of j and of k."""
    k = np.arange(1, goodput.size)
    per_instance = goodput[1:] / k
    if np.all(np.diff(per_instance) >= -SLACK * per_instance[:-1]):
        return True
    total = goodput[None, :] + goodput[:, None]
    index = np.arange(goodput.size)
    sums = index[:, None] + index[None, :]
    inside = sums < goodput.size
    return bool(np.all(total[inside] <= goodput[sums[inside]] * (1 + SLACK)))
