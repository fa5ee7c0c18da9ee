"""KV transfers that share their sender's link (processor sharing).

Each prefill instance sends over its own link; its transfers in flight get equal parts of the
bandwidth, so that work w [s at full bandwidth] ends when the attained work per transfer, V(t) with
dV/dt = 1/n(t), has grown by w. Contention at the receiver is not modelled.
"""

from __future__ import annotations

import math

import numpy as np

from bestserve.arrays import Floats, Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.simulator.time_heap import drop, put

# link_clock[i]
UPDATED, ATTAINED = range(2)


@njit(cache=True)
def link_next(keys: Floats, size: int, clock: Floats) -> float:
    """Return when the next transfer ends if no other starts [s]; inf without transfers."""
    if size == 0:
        return math.inf
    return clock[UPDATED] + (keys[0] - clock[ATTAINED]) * size


@njit(cache=True)
def link_add(
    keys: Floats,
    values: Ints,
    size: int,
    clock: Floats,
    now: float,
    work: float,
    request: int,
) -> int:
    """Start a transfer of `work` [s] at `now`; return the number under way."""
    if size > 0:
        clock[ATTAINED] += (now - clock[UPDATED]) / size
    else:
        # An idle link may count from 0 again, which keeps the differences exact.
        clock[ATTAINED] = 0.0
    clock[UPDATED] = now
    return put(keys, values, size, clock[ATTAINED] + work, request)


@njit(cache=True)
def link_end(keys: Floats, values: Ints, size: int, clock: Floats, now: float) -> int:
    """End the transfer that is due at `now`; return the number still under way."""
    clock[ATTAINED] = keys[0]
    clock[UPDATED] = now
    return drop(keys, values, size)


@njit(cache=True)
def share_link(starts: Floats, works: Floats, links: Ints32, count: int) -> Floats:
    """Return when each transfer ends [s].

    starts : float64[n], ascending [s]; works : float64[n] [s]; links : int32[n], which of the
    `count` links carries it
    """
    n = len(starts)
    ends = np.empty(n)
    for link in range(count):
        keys = np.empty(n)
        values = np.empty(n, dtype=np.int64)
        clock = np.zeros(2)
        size = 0
        for r in range(n):
            if links[r] != link:
                continue
            due = link_next(keys, size, clock)
            while due <= starts[r]:
                ends[values[0]] = due
                size = link_end(keys, values, size, clock, due)
                due = link_next(keys, size, clock)
            size = link_add(keys, values, size, clock, starts[r], works[r], r)
        while size > 0:
            due = link_next(keys, size, clock)
            ends[values[0]] = due
            size = link_end(keys, values, size, clock, due)
    return ends
