"""What others would do on the same load: a fleet that never changes, thresholds, forecasts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.fleet.schedule.planning import Terms, gpu_hours, static

QUANTILE = 0.9
"""A forecast plans for the rate that it errs below in this share of the past windows."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A rule that decides how many instances run, and what it comes to.

    counts [pool, window]; late : it decides at a window's start, so that new instances serve
    `start_time` later; carried : share of the requests within capacity [1]
    worst : the same in the worst window [1]
    """

    name: str
    counts: Ints
    late: bool
    gpu_hours: float
    carried: float
    worst: float


def judged(name: str, terms: Terms, counts: Ints, *, late: bool) -> Policy:
    """Return a rule's counts with their GPU-hours and what they carry."""
    capacity = np.min(counts * terms.capacity, axis=0)
    before = np.minimum(counts, np.roll(counts, 1, axis=1)) if late else counts
    meanwhile = np.min(before * terms.capacity, axis=0)
    waiting = np.minimum(terms.start_time, terms.durations) / terms.durations
    share = waiting * np.minimum(terms.rates, meanwhile)
    share += (1 - waiting) * np.minimum(terms.rates, capacity)
    met = np.divide(share, terms.rates, out=np.ones_like(share), where=terms.rates > 0)
    total = float(terms.rates @ terms.durations)
    carried = float(share @ terms.durations) / total if total > 0 else 1.0
    return Policy(name, counts, late, gpu_hours(terms, counts), carried, float(met.min()))


def following(terms: Terms, rates: Floats, name: str) -> Policy:
    """Return the policy that sizes each window for `rates` [window; req/s] when it begins."""
    counts = replace(terms, rates=rates).needed
    if terms.most_gpus is not None:
        over = terms.gpus @ counts > terms.most_gpus
        counts[:, over] = static(terms)[:, over]
    return judged(name, terms, counts, late=True)


def last_rate(rates: Floats, horizon: int) -> Floats:
    """Return the rate of the window before, for the last `horizon` windows [req/s]."""
    before = np.concatenate([rates[:1], rates[:-1]])
    return before[-horizon:]


def seasonal(rates: Floats, day: int, horizon: int) -> Floats | None:
    """Return the forecast λ̂(w) = λ(w − day)·λ(w − 1)/λ(w − 1 − day), raised by its own error.

    Its error is the QUANTILE of λ/λ̂ over the windows before the horizon. None without a day and a
    window of history, or where that has silent windows.
    """
    n = rates.size
    first = n - horizon
    if first < day + 1:
        return None
    old, level, before = rates[1 : n - day], rates[day : n - 1], rates[: n - day - 1]
    if np.any(before <= 0):
        return None
    forecast = np.zeros(n)
    forecast[day + 1 :] = old * level / before
    past = slice(day + 1, first)
    known = forecast[past] > 0
    ratio = rates[past][known] / forecast[past][known]
    margin = float(np.quantile(ratio, QUANTILE)) if ratio.size >= 10 else 1.0
    return forecast[first:] * max(margin, 1.0)


def compared(terms: Terms, history: Floats, day: int) -> tuple[Policy, ...]:
    """Return the policies on the last windows of `history` [window; req/s], which `terms` plans."""
    horizon = terms.rates.size
    found = [
        judged("static", terms, static(terms), late=False),
        following(terms, last_rate(history, horizon), "reactive: the window before"),
    ]
    expected = seasonal(history, day, horizon)
    if expected is not None:
        found.append(following(terms, expected, "forecast: the day before, at today's level"))
    return tuple(found)
