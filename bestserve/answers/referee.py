"""Single runs of a system in the words of the formulas: latencies, saturation, what they cover."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bestserve.answers.shrunk import shrunk
from bestserve.models.distribution import Distribution
from bestserve.models.latencies import Latencies, Observed
from bestserve.models.latency import stability_rate
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Arrivals, Hybrid, Routing, System
from bestserve.models.trust import Trust
from bestserve.simulator import Requests, SimulationResult, saturation_rate
from bestserve.simulator.run_length import replicas, run_length

TRACED = 20_000
"""Requests of a trace that runs take."""

PREDICTED = 0.99
"""The strictest percentile that a prediction states."""

FEW = 1000
"""Requests a lane below which filling and draining weigh too much in a run."""


def coverage(system: System, given: Requests | None, share: float = PREDICTED) -> Trust:
    """Return low trust if a run has too few requests for its lanes."""
    smaller = system if given is not None else shrunk(system)[0]
    lanes = replicas(smaller)
    each = (run_length(smaller, share) if given is None else len(given)) // lanes
    if system.arrivals.kind == "closed" or lanes == 1 or each >= FEW:
        return Trust(True)
    return Trust.of(f"a simulation would give each of {lanes} replicas {each} requests")


def saturation(system: System, given: Requests | None) -> float:
    """Return the highest completion rate that a run of the system shows [requests/s].

    All requests wait from the start, so that neither gaps nor routing matter: lanes take turns,
    unless what they find in prefix caches depends on it. Pools of hybrids would run dry one after
    the other: theirs is the formulas'.
    """
    if isinstance(system, Hybrid):
        return stability_rate(system)
    if system.arrivals.kind != "closed":
        routing: Routing = "round_robin" if system.caching is None else system.routing
        system = replace(system, arrivals=Arrivals(), routing=routing)
    smaller, factor = (system, 1.0) if given is not None else shrunk(system)
    size = run_length(smaller, 0.0)
    return saturation_rate(smaller, requests=size, given=given) * factor


def as_latencies(result: SimulationResult, rate: float, limit: float) -> Latencies:
    """Return a run's latencies; `limit` is the stability limit of the system [requests/s]."""
    kept, counted = result.kept, slice(*result.window)
    lost = np.where(result.refused[counted], math.inf, 0.0)
    return Latencies(
        ttft=Distribution.empirical(result.ttft[kept]),
        tpot=Distribution.empirical(result.tpot[kept]),
        rate=rate,
        utilisation=busiest(result),
        stability_rate=limit,
        mean_batch=mean_batch(result),
        trust=Trust(True),
        status=LatencyStatus.OK if bool(kept.any()) else LatencyStatus.NO_SLOT,
        observed=Observed(
            ttft=np.nan_to_num(result.ttft[counted]) + lost,
            tpot=np.nan_to_num(result.tpot[counted]) + lost,
            e2el=np.nan_to_num(result.e2el[counted]) + lost,
            steps=result.output_len[counted] - 1,
            seen=result.seen(counted),
        ),
        refused=float(result.refused.mean()),
    )


def busiest(result: SimulationResult) -> float:
    """Return the largest share of the run that a replica spent in steps [1]."""
    return max(float(np.max(pool.utilisation)) for pool in result.pools)


def mean_batch(result: SimulationResult) -> float:
    """Return the mean sequences per step of the (decode) pool."""
    return float(np.mean(result.pools[-1].batch))
