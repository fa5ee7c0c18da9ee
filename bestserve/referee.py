"""Simulated answers in the words of the analytic ones, for whatever the formulas cannot do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bestserve.models.distribution import Distribution
from bestserve.models.goodput import Binding, Goodput
from bestserve.models.latency import Latencies
from bestserve.models.status import Status
from bestserve.models.system import System, Target
from bestserve.models.trust import Trust
from bestserve.simulator import Limit, SimulationResult, simulate
from bestserve.simulator import simulated_goodput as bisect

REQUESTS = 20_000
"""Per run: goodput to about 1.5 % (coefficient of variation over seeds)."""

REPLICATIONS = 3
"""Of each goodput: enough for an interval, cheap enough to check a handful of strategies."""

_BINDING: dict[str, Binding] = {"ttft": "ttft", "tpot": "tpot", "e2el": "e2el", "joint": "joint"}


def simulated_latencies(system: System, rate: float, *, seed: int = 0) -> Latencies:
    """Return the latencies of a simulated run; percentiles are those of its requests.

    rate : of the whole system [requests/s]; ignored for closed loops
    """
    closed = system.arrivals.kind == "closed"
    result = simulate(system, None if closed else rate, requests=REQUESTS, seed=seed)
    return as_latencies(result, rate, np.nan)


def as_latencies(result: SimulationResult, rate: float, limit: float) -> Latencies:
    """Return a run's latencies; `limit` is the stability limit of the system [requests/s]."""
    kept = result.kept
    served = bool(kept.any())
    ttft, tpot, e2el = (
        _empirical(values[kept]) for values in (result.ttft, result.tpot, result.e2el)
    )
    busiest = max(float(np.max(pool.utilisation)) for pool in result.pools)
    return Latencies(
        ttft=ttft,
        tpot=tpot,
        e2el=e2el,
        rate=result.throughput if result.concurrency else rate,
        utilisation=busiest,
        stability_rate=limit,
        mean_batch=float(np.mean(result.pools[-1].batch)),
        trust=Trust(True),
        status=Status.OK if served else Status.NO_SLOT,
    )


def _empirical(values: np.ndarray) -> Distribution:
    """Return the empirical law of the finite values [s]; of none, an infinite one."""
    finite = np.sort(values[np.isfinite(values)])
    if not finite.size:
        return Distribution.point(float("inf"))
    share = (np.arange(finite.size) + 1.0) / finite.size
    return Distribution(finite, share, float(finite.mean()))


def simulated_goodput(system: System, target: Target, start: Goodput) -> Goodput:
    """Return the goodput by bisection on common random numbers, near the analytic one.

    The interval is over replications; `at` are the latencies of one run at the goodput.
    """
    found = bisect(
        system, target, requests=REQUESTS, replications=REPLICATIONS, near=start.rate or None
    )
    if found.rate <= 0:
        return replace(start, rate=0.0, low=0.0, high=0.0, detail=found.limit.value)
    result = simulate(system, found.rate, requests=REQUESTS)
    return Goodput(
        rate=found.rate,
        low=found.low,
        high=found.high,
        binding="stability" if found.limit is Limit.SATURATION else _BINDING[found.binding],
        at=as_latencies(result, found.rate, found.saturation),
        trust=Trust(True),
        status=Status.OK,
    )
