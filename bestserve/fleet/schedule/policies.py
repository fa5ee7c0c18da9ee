"""What others would do on the same load: never change, react to thresholds, forecast, a ratio."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.fleet.schedule.accounts import Carried, bill, carries, gpu_hours
from bestserve.fleet.schedule.forecasts import Forecast
from bestserve.fleet.schedule.programme import cheapest
from bestserve.fleet.schedule.splits import free_split, splits, static_split, valued
from bestserve.fleet.schedule.terms import Terms, Times

TARGET, TOLERANCE = 0.8, 0.1
"""Of an autoscaler of Kubernetes' kind: utilisation it aims at, and the deviation it lets be (the
default of --horizontal-pod-autoscaler-tolerance) [1]."""

PLAN = "this plan"


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule that decides how many instances run, and what it comes to.

    counts [pool, window]; wait : what it starts serves that long after the window begins [s]
    """

    name: str
    counts: Ints
    wait: float
    gpu_hours: float
    cost: float
    carried: Carried


def judged(name: str, terms: Terms, counts: Ints, wait: float = 0.0) -> Policy:
    """Return a rule's counts with what they cost and carry."""
    cost = bill(terms, counts).total
    return Policy(name, counts, wait, gpu_hours(terms, counts), cost, carries(terms, counts, wait))


def sized(terms: Terms, rates: Floats) -> Ints:
    """Return the cheapest instances that carry rates, each window by itself [pool, window]."""
    free = replace(_freely(terms), rates=rates, daily=None)
    if not terms.pools.single:
        return cheapest(replace(free, most_gpus=None, budgets=())).counts
    counts = free.needed
    over = terms.beyond(terms.pools.by_type(counts))
    if over.any():  # it would take more than there is: it takes what the peak needs
        counts[:, over] = terms.needed.max(axis=1, keepdims=True)
    return counts


def _freely(terms: Terms) -> Terms:
    """Return the terms if changes cost nothing and are not limited."""
    return replace(terms, times=Times(0.0, 0.0, 0.0), most_changes=None)


def thresholds(terms: Terms) -> Ints:
    """Return what an autoscaler with a target utilisation does [pool, window].

    desired = ⌈instances · utilisation / TARGET⌉ of the window before, unless utilisation is within
    TOLERANCE of the target (Kubernetes' HorizontalPodAutoscaler). One option a stream.
    """
    streams = terms.pools.stream[terms.pools.option]
    wanted = terms.rates[streams] / terms.capacity / TARGET
    counts = np.maximum(np.ceil(wanted), 1.0)
    for w in range(1, terms.windows):
        desired = wanted[:, w - 1]
        changes = np.abs(desired / counts[:, w - 1] - 1.0) > TOLERANCE
        counts[:, w] = np.where(changes, np.maximum(np.ceil(desired), 1.0), counts[:, w - 1])
    return counts.astype(np.int64)


def late(terms: Terms, counts: Ints, windows: int) -> Ints:
    """Return counts that come `windows` windows late [pool, window]."""
    return np.roll(counts, windows, axis=1)


def compared(
    terms: Terms, plan: Ints, expected: tuple[Forecast, ...], rule: Floats | None
) -> tuple[Policy, ...]:
    """Return other ways to serve the load that `terms` plans, and `plan` when it comes late.

    expected : forecasts of the load; rule : rates that DOPD's rule counts on [pool, window; req/s]
    """
    start = terms.times.start
    ideal = sized(terms, terms.rates) if terms.daily is None else cheapest(_freely(terms)).counts
    found = [
        judged("static: never changes", terms, cheapest(terms, constant=True).counts),
        judged("bound: changes are free", terms, ideal),
    ]
    if terms.pools.single:
        found.append(judged(f"thresholds at {TARGET:.0%}", terms, thresholds(terms), start))
    found += [
        judged(f"forecast: {f.name}", terms, sized(terms, f.raised), start if f.late else 0.0)
        for f in expected
    ]
    if rule is not None:
        counts = np.maximum(np.ceil(terms.rates / rule), 1).astype(np.int64)
        found.append(judged("DOPD's ratio, rate known", terms, counts))
    return (*found, *lateness(terms, plan, start))


def lateness(terms: Terms, plan: Ints, wait: float) -> list[Policy]:
    """Return the plan when its changes begin with their window, and when they come one late."""
    return [
        judged(f"{PLAN}, begun as the window begins", terms, plan, wait),
        judged(f"{PLAN}, one window late", terms, late(terms, plan, 1)),
    ]


def compared_splits(terms: Terms, gpus: int, plan: Ints, rule: Floats | None) -> tuple[Policy, ...]:
    """Return other ways to split `gpus` into prefill and decode on the same load."""
    ways, wait = splits(terms, gpus), terms.times.switch
    before = np.maximum(np.arange(terms.windows) - 1, 0)

    reactive = ways[:, np.argmax(valued(terms, ways), axis=0)][:, before]
    found = [
        judged("static: best split", terms, static_split(terms, gpus).counts),
        judged("bound: changes are free", terms, free_split(terms, gpus).counts),
        judged("reactive: best for the window before", terms, reactive, wait),
    ]
    if rule is not None:
        full = np.min(ways[:, :, None] * rule[:, None, :], axis=0)  # [way, window]
        counts = ways[:, np.argmax(full, axis=0)]
        found.append(judged("DOPD's ratio, mix known", terms, counts, wait))
    return (*found, *lateness(terms, plan, wait))
