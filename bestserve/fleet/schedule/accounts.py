"""What counts of instances come to: changes, GPU-hours, the bill, what they carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.fleet.schedule.terms import Prices, Terms, carried_rate, up_instances


def started(counts: Ints) -> Ints:
    """Return the instances that start with each window [pool, window]; the first follows the last.

    >>> started(np.array([[1, 3, 2]]))
    array([[0, 2, 0]])
    """
    return np.maximum(counts - np.roll(counts, 1, axis=1), 0)


def stopped(counts: Ints) -> Ints:
    """Return the instances that stop with each window [pool, window]."""
    return np.maximum(np.roll(counts, 1, axis=1) - counts, 0)


def gpu_hours(terms: Terms, counts: Ints) -> float:
    """Return the GPU-hours of a schedule with its starts."""
    gpus = terms.pools.gpus
    serving = float((gpus @ counts) @ terms.durations)
    return (serving + terms.times.start * float((gpus @ started(counts)).sum())) / 3600.0


@dataclass(frozen=True, slots=True)
class Bill:
    """What a schedule costs in all, what is paid all day, and by window [window].

    total, by_window : in GPU-hours, or USD where there are prices; reserved : GPUs by type
    """

    total: float
    reserved: Ints
    by_window: Floats


def bill(terms: Terms, counts: Ints) -> Bill:
    """Return the bill, with as many reserved GPUs of each type as cost least.

    What starts is paid from `start` before its window on; a reserved GPU that idles takes it. The
    part of a start that is longer than the window before is paid on demand.
    """
    used, starting = terms.pools.by_type(counts), terms.pools.by_type(started(counts))
    prices = terms.prices or free_of_reserves(terms)
    reserved = np.zeros(terms.pools.types, dtype=np.int64)
    by_window = np.zeros(terms.windows)
    for t in range(terms.pools.types):
        offers = range(int(used[t].max()) + 1) if np.isfinite(prices.reserved[t]) else (0,)
        bills = [_bill_of(terms, prices, t, used[t], starting[t], r) for r in offers]
        reserved[t] = int(np.argmin([b.sum() for b in bills]))
        by_window += bills[reserved[t]]
    return Bill(float(by_window.sum()), reserved, by_window)


def free_of_reserves(terms: Terms) -> Prices:
    """Return prices with which a bill counts GPU-hours."""
    return Prices(np.ones(terms.pools.types), np.full(terms.pools.types, np.nan))


def overlaps(terms: Terms) -> tuple[Floats, Floats]:
    """Return how long what starts with a window runs in the one before, and before that [s]."""
    before = np.roll(terms.durations, 1)
    inside = np.minimum(terms.times.start, before)
    return inside, terms.times.start - inside


def _bill_of(
    terms: Terms, prices: Prices, t: int, used: Floats, starting: Floats, reserved: int
) -> Floats:
    inside, earlier = overlaps(terms)
    alone = np.maximum(used - reserved, 0.0) * (terms.durations - np.roll(inside, -1))
    before = np.maximum(np.roll(used, 1) + starting - reserved, 0.0) * inside
    seconds = alone + np.roll(before + earlier * starting, -1)
    total: Floats = prices.on_demand[t] * seconds / 3600.0
    if reserved:
        total = total + prices.reserved[t] * reserved * terms.durations / 3600.0
    return total


@dataclass(frozen=True, slots=True)
class Carried:
    """What counts carry of a load.

    share : of the requests within capacity, in all and by window [1]; backlog : share of the
    requests that come while nothing waits, if nobody is turned away
    """

    share: float
    by_window: Floats
    without_backlog: float

    @property
    def worst(self) -> float:
        """The share of the worst window [1]."""
        return float(self.by_window.min())


def carries(terms: Terms, counts: Ints, wait: float = 0.0) -> Carried:
    """Return what counts carry; what started serves `wait` [s] after its window begins."""
    before = np.minimum(counts, np.roll(counts, 1, axis=1))
    waiting = np.minimum(wait, terms.durations) / terms.durations
    after, meanwhile = carried_rate(terms, counts), carried_rate(terms, before)
    rate = waiting * np.minimum(terms.rates, meanwhile)
    rate += (1 - waiting) * np.minimum(terms.rates, after)
    mean_capacity = waiting * meanwhile + (1 - waiting) * after
    offered = terms.rates.sum(axis=0)
    by_window = np.divide(rate.sum(axis=0), offered, out=np.ones_like(offered), where=offered > 0)
    total = float(offered @ terms.durations)
    share = float(rate.sum(axis=0) @ terms.durations) / total if total > 0 else 1.0
    in_time = _without_backlog(terms, mean_capacity)
    return Carried(share, by_window, in_time / total if total > 0 else 1.0)


def _without_backlog(terms: Terms, capacity: Floats) -> float:
    """Return the requests of the windows in which no backlog is, stream by stream."""
    good = 0.0
    for rates, able in zip(terms.rates, capacity, strict=True):
        backlog = 0.0
        for rate, most, duration in zip(rates, able, terms.durations, strict=True):
            left = max(0.0, backlog + (rate - most) * duration)
            if backlog == 0.0 and left <= 1e-9 * rate * duration:
                good += rate * duration
            backlog = left if left > 1e-9 * rate * duration else 0.0
    return good


def broken(terms: Terms, counts: Ints) -> str:
    """Return which of the terms counts break, "" if none."""
    able = carried_rate(terms, up_instances(terms, counts))
    if terms.daily is not None and not terms.daily.kept(counts):
        return "the day's requests do not meet the objectives"
    if terms.daily is None and np.any(able < terms.wanted * (1 - 1e-6)):
        return "a window does not carry its rate"
    starts, stops = started(counts), stopped(counts)
    if terms.most_changes is not None and (starts + stops).sum(axis=0).max() > terms.most_changes:
        return "more changes than allowed"
    if terms.times.stay > 0 and any(
        np.any(starts[:, terms.recent(w)].sum(axis=1) > counts[:, w]) for w in range(terms.windows)
    ):
        return "an instance stops before its least stay"
    if terms.least is not None and np.any((counts > 0) & (counts < terms.least[:, None])):
        return "fewer instances than a pool must have"
    if terms.most_pools is not None and counts.any(axis=1).sum() > terms.most_pools:
        return "more pools than allowed"
    used, starting = terms.pools.by_type(counts), terms.pools.by_type(starts)
    # what starts needs its GPUs before what stops gives its own back
    if terms.beyond(np.maximum(used, np.roll(used, 1, axis=1) + starting)).any():
        return "more GPUs than there are"
    return ""
