"""The split of N GPUs into prefill and decode, window by window, by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InfeasibleError
from bestserve.fleet.schedule.terms import Terms, Times, up_instances

EASE, CALM = 1e-6, 1e-7
"""What free capacity, and each instance that does not change, are worth beside requests [1]."""


@dataclass(frozen=True, slots=True)
class Split:
    """Splits [pool, window] and the share of the requests that they carry within capacity [1]."""

    counts: Ints
    carried: float


def splits(terms: Terms, gpus: int) -> Ints:
    """Return the ways to split `gpus` into two pools [pool, way]; none of both may be empty."""
    one, other = (int(g) for g in terms.pools.gpus)
    ways = [(p, (gpus - p * one) // other) for p in range(1, gpus // one + 1)]
    kept = [way for way in ways if way[1] >= 1]
    if not kept:
        raise InfeasibleError(f"{gpus} GPUs hold no instance of each pool ({one} and {other} GPUs)")
    return np.array(kept, dtype=np.int64).T


def served(terms: Terms, ways: Ints) -> Floats:
    """Return the requests that each way serves in each window at its capacity [way, window]."""
    up = up_instances(terms, ways)
    capacity = np.min(up[:, :, None] * terms.capacity[:, None, :], axis=0)
    result: Floats = np.minimum(terms.rates[0], capacity) * terms.durations
    return result


def valued(terms: Terms, ways: Ints) -> Floats:
    """Return what each way is worth in each window: what it serves, and of those alike the emptier.

    A window's requests count EASE times the share of its capacity that stays free [way, window].
    """
    up = up_instances(terms, ways)
    capacity = np.min(up[:, :, None] * terms.capacity[:, None, :], axis=0)
    busy = np.minimum(terms.rates[0] / np.maximum(capacity, 1e-300), 1.0)
    result: Floats = served(terms, ways) + EASE * terms.rates[0] * terms.durations * (1.0 - busy)
    return result


def lost(terms: Terms, ways: Ints, window: int) -> Floats:
    """Return what is lost when one way follows another at a window [from, to; requests].

    For the switch time only the instances that both have serve.
    """
    rate, capacity = terms.rates[0, window], terms.capacity[:, window]
    common = up_instances(terms, _pairs(np.minimum(ways[:, :, None], ways[:, None, :])))
    meanwhile = np.min(common * capacity[:, None], axis=0).reshape(ways.shape[1], -1)
    after = np.min(up_instances(terms, ways) * capacity[:, None], axis=0)
    missing = np.maximum(np.minimum(rate, after)[None] - np.minimum(rate, meanwhile), 0.0)
    result: Floats = missing * min(terms.times.switch, float(terms.durations[window]))
    return result


def switching(terms: Terms, ways: Ints, window: int) -> Floats:
    """Return the same with what calm is worth, infinite beyond `most_changes` [from, to]."""
    loss = lost(terms, ways, window)
    change = ways[:, None, :] - ways[:, :, None]
    moved = np.maximum(np.maximum(change, 0).sum(axis=0), np.maximum(-change, 0).sum(axis=0))
    if terms.most_changes is not None:
        loss = np.where(moved > terms.most_changes, np.inf, loss)
    result: Floats = loss + CALM * terms.rates[0, window] * terms.durations[window] * moved
    return result


def _pairs(values: Ints) -> Ints:
    return values.reshape(values.shape[0], -1)


def best_split(terms: Terms, gpus: int) -> Split:
    """Return the splits of `gpus` over time that serve most requests.

    States are a way and for how many windows it has stood, up to those of the least stay; only
    what has stood that long may change. The first window's split was there before.
    """
    ways = splits(terms, gpus)
    gain, windows, n = valued(terms, ways), terms.windows, ways.shape[1]
    stays = _stays(terms)
    oldest = int(stays.max())
    value = np.full((oldest + 1, n), -np.inf)
    value[oldest] = gain[:, 0]
    came: list[tuple[Ints, Ints]] = []  # per window: age before, way before [age, way]
    for w in range(1, windows):
        free = value[stays[w] :]
        best_age, best = stays[w] + np.argmax(free, axis=0), np.max(free, axis=0)
        through = best[:, None] - switching(terms, ways, w)
        np.fill_diagonal(through, -np.inf)
        source = np.argmax(through, axis=0)
        after = np.full_like(value, -np.inf)
        ages = np.zeros((oldest + 1, n), dtype=np.int64)
        froms = np.tile(np.arange(n), (oldest + 1, 1))
        for age in range(oldest + 1):  # who does not change grows older
            older = min(age + 1, oldest)
            better = value[age] > after[older]
            after[older] = np.where(better, value[age], after[older])
            ages[older] = np.where(better, age, ages[older])
        fresh = min(1, oldest)
        changed = through[source, np.arange(n)]
        better = changed > after[fresh]
        after[fresh] = np.where(better, changed, after[fresh])
        ages[fresh] = np.where(better, best_age[source], ages[fresh])
        froms[fresh] = np.where(better, source, froms[fresh])
        came.append((ages, froms))
        value = after + gain[:, w]
    age, way = (int(i) for i in np.unravel_index(int(np.argmax(value)), value.shape))
    path = [way]
    for ages, froms in reversed(came):
        age, way = int(ages[age, way]), int(froms[age, way])
        path.append(way)
    return Split(ways[:, path[::-1]], _share(terms, ways, path[::-1]))


def _share(terms: Terms, ways: Ints, path: list[int]) -> float:
    """Return the share of the requests that a path of ways carries, losses taken off [1]."""
    total = float((terms.rates @ terms.durations).sum())
    if total == 0:
        return 1.0
    carried = float(served(terms, ways)[path, np.arange(terms.windows)].sum())
    for w in range(1, terms.windows):
        before, after = path[w - 1], path[w]
        if before != after:
            carried -= float(lost(terms, ways[:, [before, after]], w)[0, 1])
    return carried / total


def _stays(terms: Terms) -> Ints:
    """Return for how many windows a split must have stood to change at each window [window]."""
    starts = terms.starts
    needed = [
        next((k for k in range(1, w + 1) if starts[w] - starts[w - k] >= terms.times.stay), w)
        for w in range(terms.windows)
    ]
    return np.array(needed, dtype=np.int64)


def static_split(terms: Terms, gpus: int) -> Split:
    """Return the one split of `gpus` that serves most requests if it never changes."""
    ways = splits(terms, gpus)
    best = int(np.argmax(valued(terms, ways).sum(axis=1)))
    path = [best] * terms.windows
    return Split(ways[:, path], _share(terms, ways, path))


def free_split(terms: Terms, gpus: int) -> Split:
    """Return the best split of each window if changing costs nothing and is not limited."""
    free = replace(terms, times=Times(terms.times.start, 0.0, 0.0), most_changes=None)
    return best_split(free, gpus)
