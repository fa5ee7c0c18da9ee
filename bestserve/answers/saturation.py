"""The highest rate that a service sustains: one figure, whoever asks."""

from __future__ import annotations

import math

from bestserve.answers.referee import saturation
from bestserve.answers.simulated import GROWTH, Simulated, growth
from bestserve.models.latency import stability_rate
from bestserve.models.system import Collocated, Hybrid, Lane, Lengths, System
from bestserve.simulator import Requests

AGREEMENT = 0.03
"""Relative difference of the formulas' saturated rate from a run's up to which it stands."""

SHARE, TIMES = 0.9, 5
"""Length of those runs, that of 90th percentiles behind a cache that evicts: what a run says of an
objective, the same run says of the queue."""

RESOLUTION = 0.005
"""Relative width at which the search for a growing queue ends."""


def sustained(system: System, given: Requests | None) -> float:
    """Return the highest rate at which the queue does not grow [req/s].

    The formulas' wherever the KV cache holds all requests that may run, and of hybrids. Where it
    does not, a run that starts with everything waiting checks it. A full cache evicts and computes
    again, so such a run may carry less than arrivals find that come one by one; then runs of those
    decide.
    """
    formula = stability_rate(system)
    if isinstance(system, Hybrid) or not fills(system):
        return formula
    low = saturation(system, given)
    if low <= 0 or abs(formula - low) <= AGREEMENT * low:
        return formula if low > 0 else 0.0
    high = max(formula, low)
    runs = Simulated(system=system, share=SHARE, times=TIMES, given=given)
    while high > low * (1 + RESOLUTION):
        middle = math.sqrt(low * high)
        if growth(runs.run(middle)) > GROWTH:
            high = middle
        else:
            low = middle
    return math.sqrt(low * high)


def apart(system: System, limit: float, given: Requests | None) -> float:
    """Return how far the saturated rate of a run is from one that formulas say [ln].

    Infinite for hybrids, whose pools a run that starts full shows one after the other.
    """
    shown = 0.0 if isinstance(system, Hybrid) else saturation(system, given)
    return abs(math.log(limit / shown)) if shown > 0 else math.inf


def fills(system: System) -> bool:
    """Whether requests of mean length in all slots fill the KV cache of some lane."""
    return any(_may_fill(lane, system.lengths) for lane in _lanes(system))


def _may_fill(lane: Lane, lengths: Lengths) -> bool:
    """Whether requests of mean length in all slots fill a lane's KV cache."""
    mean = float(lengths.inputs @ lengths.input_weights + lengths.outputs @ lengths.output_weights)
    return lane.max_num_seqs * mean > lane.kv_capacity_tokens


def _lanes(system: System) -> tuple[Lane, ...]:
    if isinstance(system, Collocated):
        return (system.lane,)
    return (system.prefill, system.decode)
