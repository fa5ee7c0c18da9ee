"""How many requests a run needs for one figure to be as certain as another."""

from __future__ import annotations

import math

from bestserve.models.system import Collocated, System

REPLICATIONS = 5
"""Of one goodput: many enough that its interval says something, 1.2 standard deviations of one."""

REQUESTS = 12_000
"""Of each replication, for up to 90th percentiles and `LANES` replicas."""

MOST_REQUESTS = 120_000

LANES, COUPLED = 4, 16
"""Replicas that share `REQUESTS`, by themselves and behind a router that evens them out; more of
them get more."""

TAIL_POWER, SPREAD_POWER = 0.8, 0.6
"""Of the share of requests beyond a percentile, and of 1 + the squared CV of prompts, as fitted."""

TURNOVERS = 20
"""Times that all running requests are replaced in a run: the first fills the replicas."""


def run_length(system: System, share: float, running: float = 0.0) -> int:
    """Return how many requests to simulate for one figure.

    share : of the requests that meet the strictest objective, e.g. 0.99 for 99th percentiles [1]
    running : requests that a replica serves at a time, as far as known

    48 goodputs of 20,000 requests scattered over seeds by 0.2 to 2 % of a 90th percentile and 0.8
    to 5 % of a 99th: with the share beyond it to the power −0.4 and with 1 + the squared CV of the
    prompts to 0.3, that of the answers hardly, and less with more requests in flight. The variance
    of a wait's mean over a run grows with the gaps' squared CV plus the services'.
    """
    law = system.lengths
    mean = float(law.inputs @ law.input_weights)
    second = float(law.inputs**2 @ law.input_weights) / mean**2
    tail = max(0.1 / max(1.0 - share, 1e-3), 1.0)
    pools = math.ceil(replicas(system) / (LANES if system.routing == "random" else COUPLED))
    bursts = max((1.0 + system.arrivals.scv) / 2, 1.0)
    # the half that fills the caches does not count
    filling = 1.0 if system.caching is None else 2.0
    needed = filling * REQUESTS * pools * tail**TAIL_POWER * second**SPREAD_POWER * bursts
    filled = TURNOVERS * running * replicas(system)
    # doubled, so that systems alike have runs of a few lengths, which can share random numbers
    doubled = 2.0 ** math.ceil(math.log2(max(filled / needed, 1.0)))
    return round(min(needed * doubled, MOST_REQUESTS))


def replicas(system: System) -> int:
    """Return the replicas of the larger pool."""
    if isinstance(system, Collocated):
        return system.replicas
    return max(system.prefill_replicas, system.decode_replicas)
