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
from bestserve.simulator import Limit, Requests, SimulationResult, simulate
from bestserve.simulator import simulated_goodput as bisect

REQUESTS = 20_000
"""Per run: goodput to about 1.5 % (coefficient of variation over seeds)."""

REPLICATIONS = 3
"""Of each goodput: enough for an interval, cheap enough to check a handful of strategies."""

_BINDING: dict[str, Binding] = {"ttft": "ttft", "tpot": "tpot", "e2el": "e2el", "joint": "joint"}


def simulated(system: System, rate: float, given: Requests | None) -> SimulationResult:
    """Return one run of a system at a rate [requests/s]; a closed loop sets its own.

    given : the requests to run instead of sampling the workload
    """
    closed = system.arrivals.kind == "closed"
    return simulate(system, None if closed else rate, requests=REQUESTS, given=given)


def as_latencies(result: SimulationResult, rate: float, limit: float) -> Latencies:
    """Return a run's latencies; `limit` is the stability limit of the system [requests/s]."""
    kept = result.kept
    found = Latencies(
        ttft=_empirical(result.ttft[kept]),
        tpot=_empirical(result.tpot[kept]),
        rate=rate,
        utilisation=busiest(result),
        stability_rate=limit,
        mean_batch=mean_batch(result),
        trust=Trust(True),
        status=Status.OK if bool(kept.any()) else Status.NO_SLOT,
    )
    # The simulated law takes the place of the one that the property would compose.
    vars(found)["e2el"] = _empirical(result.e2el[kept])
    return found


def busiest(result: SimulationResult) -> float:
    """Return the largest share of the run that a replica spent in steps [1]."""
    return max(float(np.max(pool.utilisation)) for pool in result.pools)


def mean_batch(result: SimulationResult) -> float:
    """Return the mean sequences per step of the (decode) pool."""
    return float(np.mean(result.pools[-1].batch))


def _empirical(values: np.ndarray) -> Distribution:
    """Return the empirical law of the finite values [s]; of none, an infinite one."""
    finite = np.sort(values[np.isfinite(values)])
    if not finite.size:
        return Distribution.point(float("inf"))
    share = (np.arange(finite.size) + 1.0) / finite.size
    return Distribution(finite, share, float(finite.mean()))


def simulated_goodput(
    system: System, target: Target, start: Goodput, given: Requests | None = None
) -> Goodput:
    """Return the goodput by bisection on common random numbers, near the analytic one.

    The interval is over replications; `at` are the latencies of one run at the goodput.
    """
    found = bisect(
        system,
        target,
        requests=REQUESTS,
        replications=REPLICATIONS,
        near=start.rate or None,
        given=given,
    )
    if found.rate <= 0:
        return replace(start, rate=0.0, low=0.0, high=0.0, detail=found.limit.value)
    result = simulated(system, found.rate, given)
    return Goodput(
        rate=found.rate,
        low=found.low,
        high=found.high,
        binding="stability" if found.limit is Limit.SATURATION else _BINDING[found.binding],
        at=as_latencies(result, found.rate, found.saturation),
        trust=Trust(True),
        status=Status.OK,
    )
