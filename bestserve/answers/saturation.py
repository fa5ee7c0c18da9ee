"""The highest rate that a service sustains: one figure, whoever asks."""

from __future__ import annotations

import math
from dataclasses import replace

from bestserve.answers.referee import saturation
from bestserve.answers.shrunk import thinned
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

PATIENT, PILED = 10, 0.003
"""Length of a run of one lane, and the share of its requests that pile up, from which its queue is
taken to grow: where a jam keeps itself going, 0.006 and more 3 % beyond the saturated rate, 0.001
and less below it (`grows`)."""

BELOW = (AGREEMENT, 0.05)
"""How far below a saturated rate runs look for a growing queue: at single rates, those that a lane
out of step just carries, no jam grows."""


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


def borne_out(system: System, limit: float) -> bool:
    """Whether runs show that the queue grows beyond a saturated rate [req/s], and not below it.

    Of lanes by themselves, each of which sees a random share of the arrivals; others are not asked.
    """
    known = system.routing == "random" and system.arrivals.kind == "gamma"
    if not isinstance(system, Collocated) or not known:
        return False
    if not grows(system, limit * (1 + AGREEMENT)):
        return False
    return not any(grows(system, limit / (1 + apart)) for apart in BELOW)


def grows(system: Collocated, rate: float, seed: int = 0) -> bool:
    """Whether a long run of one of the lanes ends with a longer queue, at a rate [req/s] of all.

    Runs of the usual length may end before that shows. Where prompts go first and answers have one
    length, those that begin together end together and leave their slots to others that do: a lane
    whose requests fell in step may carry half as much again as one whose requests did not. It falls
    out of step at the first jam, and the jam stays.
    """
    arrivals = thinned(system.arrivals, system.replicas)
    lane = replace(system, replicas=1, arrivals=arrivals)
    runs = Simulated(system=lane, share=SHARE, times=PATIENT, seed=seed)
    return growth(runs.run(rate / system.replicas)) > PILED


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
