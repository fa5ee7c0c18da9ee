"""A schedule from each window's cheapest patterns, where streams may be served in several ways.

A pattern is a number of instances of each pool of a stream. Of every window the cheapest patterns
that carry it are found exactly, by joining the ways to carry a part of its rate, option by option;
dynamic programming then chooses one for each window, starts included, and may keep what stood
before or comes next. What each window costs by itself is a bound: without starts it is the optimum.

Streams are taken one by one: what limits them together is looked at afterwards (`programme`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.fleet.schedule.accounts import bill, free_of_reserves
from bestserve.fleet.schedule.failures import totals
from bestserve.fleet.schedule.terms import Terms, carried_rate, up_instances

KEPT = 40
"""Patterns of a window that are considered, cheapest first."""

PARTS = 400
"""Ways to carry a part of the rate that are joined with the next option's."""

NEAR = 6
"""Windows before and after whose choice a window may keep, in the next round."""

ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Chosen:
    """Instances [pool, window], the bill, and what every schedule costs at least."""

    counts: Ints
    objective: float
    bound: float


def chosen(terms: Terms) -> Chosen:
    """Return the schedule of the cheapest patterns; limits of all streams together are not kept."""
    counts = np.zeros(terms.capacity.shape, dtype=np.int64)
    bound = 0.0
    for stream in range(terms.rates.shape[0]):
        mine = np.flatnonzero(terms.pools.stream[terms.pools.option] == stream)
        of_stream = _Stream(terms, stream, mine)
        found = [of_stream.patterns(w) for w in range(terms.windows)]
        hours = terms.durations / 3600.0
        bound += float(
            sum(h * (p @ of_stream.price).min() for h, p in zip(hours, found, strict=True))
        )
        counts[mine] = of_stream.path(found)
    return Chosen(counts, bill(terms, counts).total, bound)


@dataclass(frozen=True, slots=True)
class _Stream:
    """One stream with its pools."""

    terms: Terms
    number: int
    pools: Ints

    @property
    def price(self) -> Floats:
        """What an instance of each pool costs [per hour]."""
        prices = self.terms.prices or free_of_reserves(self.terms)
        of_type = prices.on_demand[self.terms.pools.gpu_type[self.pools]]
        found: Floats = of_type * self.terms.pools.gpus[self.pools]
        return found

    def patterns(self, window: int) -> Ints:
        """Return the cheapest patterns that carry a window [pattern, pool]."""
        wanted = float(self.terms.wanted[self.number, window])
        able, counts = np.zeros(1), np.zeros((1, self.pools.size), dtype=np.int64)
        for option in np.unique(self.terms.pools.option[self.pools]):
            more, added = self._ways(option, window, wanted)
            able = np.minimum((able[:, None] + more[None, :]).ravel(), wanted)
            counts = (counts[:, None, :] + added[None, :, :]).reshape(-1, self.pools.size)
            kept = _worth(able, counts @ self.price)
            able, counts = able[kept], counts[kept]
        good = counts[able >= wanted * (1 - 1e-9)]
        order = np.argsort(good @ self.price, kind="stable")[:KEPT]
        found: Ints = good[order]
        return found

    def _ways(self, option: int, window: int, wanted: float) -> tuple[Floats, Ints]:
        """Return what numbers of instances of an option carry, up to all that is wanted."""
        places = np.flatnonzero(self.terms.pools.option[self.pools] == option)
        each = self.terms.capacity[self.pools[places], window]
        steps = [np.arange(1, int(np.ceil(wanted / c - 1e-9)) + 1) * c for c in each]
        able = np.unique(np.concatenate([[0.0], *steps]))
        able = able[: int(np.searchsorted(able, wanted * (1 - 1e-9))) + 1]
        counts = np.zeros((able.size, self.pools.size), dtype=np.int64)
        for place, c in zip(places, each, strict=True):
            up = np.ceil(able / c - 1e-9).astype(np.int64)
            counts[:, place] = self._with_spares(int(place), up)
        return able, counts

    def _with_spares(self, place: int, up: Ints) -> Ints:
        r = self.terms.reliability
        if r is None:
            return up
        return totals(float(r.up[self.pools[place]]), r.availability, int(up.max()))[up]

    def path(self, patterns: list[Ints]) -> Ints:
        """Return the cheapest way through the windows' patterns [pool, window], starts included."""
        tried = patterns
        found = self._through(tried)
        for _ in range(ROUNDS if self.terms.times.start > 0 else 0):
            tried = [self._wider(w, own, found) for w, own in enumerate(tried)]
            found = self._through(tried)
        return found

    def _wider(self, window: int, own: Ints, path: Ints) -> Ints:
        """Return a window's patterns and what its neighbours have, where that carries it."""
        near = (window + np.arange(-NEAR, NEAR + 1)) % path.shape[1]
        both = np.unique(np.concatenate([own, path[:, near].T]), axis=0)
        whole = np.zeros((self.terms.capacity.shape[0], both.shape[0]), dtype=np.int64)
        whole[self.pools] = both.T
        able = self._carried(whole, window)
        found: Ints = both[able >= self.terms.wanted[self.number, window] * (1 - 1e-9)]
        return found

    def _carried(self, counts: Ints, window: int) -> Floats:
        """Return what patterns [pool, pattern] carry of the stream in a window [req/s]."""
        columns = counts.shape[1]
        wide = replace(
            self.terms,
            capacity=np.repeat(self.terms.capacity[:, window : window + 1], columns, axis=1),
            rates=np.repeat(self.terms.rates[:, window : window + 1], columns, axis=1),
            durations=np.ones(columns),
        )
        able: Floats = carried_rate(wide, up_instances(wide, counts))[self.number]
        return able

    def _through(self, patterns: list[Ints]) -> Ints:
        """Return the cheapest path [pool, window]: the second of two days, so that it repeats."""
        windows, start = len(patterns), self.price * self.terms.times.start / 3600.0
        hours = self.terms.durations / 3600.0
        value = hours[0] * (patterns[0] @ self.price)
        came: list[Ints] = []
        for step in range(1, 2 * windows):
            before, now = patterns[(step - 1) % windows], patterns[step % windows]
            rising = np.maximum(now[None, :, :] - before[:, None, :], 0) @ start
            through = value[:, None] + rising
            source = np.argmin(through, axis=0)
            came.append(source)
            value = through[source, np.arange(now.shape[0])]
            value = value + hours[step % windows] * (now @ self.price)
        at, path = int(np.argmin(value)), np.zeros((self.pools.size, windows), dtype=np.int64)
        for step in range(2 * windows - 1, windows - 1, -1):
            path[:, step - windows] = patterns[step - windows][at]
            at = int(came[step - 1][at])
        return path


def _worth(able: Floats, cost: Floats) -> Ints:
    """Return which ways to carry a part are worth joining: none that carries less for more.

    Of those that carry as much, a few that cost most nearly as little are kept, too.
    """
    order = np.lexsort((cost, -able))
    best = np.minimum.accumulate(cost[order])
    behind = cost[order] - best
    kept = order[behind <= 1e-12]
    if kept.size >= PARTS:
        return kept
    others = order[behind > 1e-12]
    near = others[np.argsort(behind[behind > 1e-12], kind="stable")[: PARTS - kept.size]]
    return np.concatenate([kept, near])
