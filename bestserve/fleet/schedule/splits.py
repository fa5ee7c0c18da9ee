"""The split of N GPUs into prefill and decode, window by window, by dynamic programming."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InfeasibleError
from bestserve.fleet.schedule.terms import Terms, Times, up_instances


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


def switching(terms: Terms, ways: Ints, window: int) -> Floats:
    """Return what is lost when one way follows another at a window [from, to; requests].

    For the switch time only the instances that both have serve. Infinite where more instances
    change than `most_changes`.
    """
    rate, capacity = terms.rates[0, window], terms.capacity[:, window]
    common = up_instances(terms, _pairs(np.minimum(ways[:, :, None], ways[:, None, :])))
    meanwhile = np.min(common * capacity[:, None], axis=0).reshape(ways.shape[1], -1)
    after = np.min(up_instances(terms, ways) * capacity[:, None], axis=0)
    lost = np.minimum(rate, after)[None] - np.minimum(rate, meanwhile)
    loss = np.maximum(lost, 0.0) * min(terms.times.switch, float(terms.durations[window]))
    if terms.most_changes is not None:
        change = ways[:, None, :] - ways[:, :, None]
        moved = np.maximum(np.maximum(change, 0).sum(axis=0), np.maximum(-change, 0).sum(axis=0))
        loss = np.where(moved > terms.most_changes, np.inf, loss)
    return loss


def _pairs(values: Ints) -> Ints:
    return values.reshape(values.shape[0], -1)


def best_split(terms: Terms, gpus: int) -> Split:
    """Return the splits of `gpus` over time that serve most requests.

    States are a way and for how many windows it has stood, up to those of the least stay; only
    what has stood that long may change. The first window's split was there before.
    """
    ways = splits(terms, gpus)
    gain, windows, n = served(terms, ways), terms.windows, ways.shape[1]
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
    total = float((terms.rates @ terms.durations).sum())
    return Split(ways[:, path[::-1]], float(value.max()) / total if total > 0 else 1.0)


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
    sums = served(terms, ways).sum(axis=1)
    best = int(np.argmax(sums))
    total = float((terms.rates @ terms.durations).sum())
    counts = np.repeat(ways[:, best : best + 1], terms.windows, axis=1)
    return Split(counts, float(sums[best]) / total if total > 0 else 1.0)


def free_split(terms: Terms, gpus: int) -> Split:
    """Return the best split of each window if changing costs nothing and is not limited."""
    free = replace(terms, times=Times(terms.times.start, 0.0, 0.0), most_changes=None)
    return best_split(free, gpus)
