"""Simulated answers in the words of the analytic ones, for whatever the formulas cannot do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bestserve.models.binding import Binding
from bestserve.models.distribution import Distribution
from bestserve.models.goodput import Goodput
from bestserve.models.latencies import Latencies, Observed
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Arrivals, Collocated, System, Target
from bestserve.models.trust import Trust
from bestserve.simulator import (
    Limit,
    Requests,
    SimulatedGoodput,
    SimulationResult,
    saturation_rate,
    simulate,
)
from bestserve.simulator import simulated_goodput as crossing
from bestserve.simulator.run_length import REPLICATIONS, replicas, run_length

TRACED = 20_000
"""Requests of a trace that runs take."""

SURE = 0.05
"""Relative half-width of its interval up to which a simulated goodput is trusted."""

PREDICTED = 0.99
"""The strictest percentile that a prediction states."""

ALIKE = 4
"""Lanes a pool keeps where splitting at random is only nearly exact (`shrunk`)."""

TURNS = 2
"""Lanes a pool keeps where they take turns: prefill lanes keep their gaps exactly."""

SURPLUS = 0.01
"""Share of a pool that a smaller system may leave out to keep the pools in proportion."""

POOLED, POOLED_APART = 16, 8
"""Lanes a pool keeps where a router looks at them: P90 TTFT 10 % lower, P90 TPOT 10 % higher than
with 64 of them at worst, in a dozen settings."""

FEW = 1000
"""Requests a lane below which filling and draining weigh too much in a run."""


def shrunk(system: System) -> tuple[System, float]:
    """Return a system with fewer replicas whose requests fare alike, and how many times smaller.

    A run of a large fleet gives each replica too few requests to fill it. Routing at random
    splits a Poisson stream into Poisson streams, so one replica stands for all of them; bursty
    gaps, thinned at random, keep (scv − 1)/replicas. Taking turns gives a replica every k-th
    request, whose gaps are gamma with k times the shape: one replica stands for all of them again.
    A prefill and a decode pool shrink alike, which leaves out up to `SURPLUS` of one of them.
    Everything else is returned as it is, with 1: least KV too, which sends more requests to one
    replica before their KV shows there the more replicas there are.
    """
    arrivals = system.arrivals
    if arrivals.kind != "gamma" or arrivals.cap or system.routing == "least_kv":
        return system, 1.0
    apart = POOLED if isinstance(system, Collocated) else POOLED_APART
    keep = {"random": ALIKE, "round_robin": TURNS}.get(system.routing, apart)
    if isinstance(system, Collocated):
        exact = system.routing == "round_robin" or (
            system.routing == "random" and arrivals.burstiness == 1
        )
        keep = 1 if exact else min(keep, system.replicas)
        factor = system.replicas / keep
        smaller: System = replace(system, replicas=keep)
    else:
        x, y = system.prefill_replicas, system.decode_replicas
        a, b = (x, y) if system.transfer.shared else _in_proportion(x, y, keep)
        factor = min(x / a, y / b)
        smaller = replace(system, prefill_replicas=a, decode_replicas=b)
    if system.routing == "round_robin":
        arrivals = replace(arrivals, burstiness=arrivals.burstiness * factor)
    elif system.routing == "random":
        arrivals = _thinned(arrivals, factor)
    return replace(smaller, arrivals=arrivals), factor


def _in_proportion(x: int, y: int, keep: int) -> tuple[int, int]:
    """Return the fewest replicas, `keep` or more a pool, in the proportion x : y to `SURPLUS`.

    >>> _in_proportion(24, 40, 4), _in_proportion(23, 41, 4), _in_proportion(3, 1, 4)
    ((6, 10), (5, 9), (3, 1))
    """
    for a in range(min(x, keep), x):
        for b in (a * y // x, -(-a * y // x)):
            apart = abs(math.log(max(a * y, 1) / max(b * x, 1)))
            if min(y, keep) <= b <= y and apart <= math.log1p(SURPLUS):
                return a, b
    return x, y


def _thinned(arrivals: Arrivals, factor: float) -> Arrivals:
    """Return a share of 1/`factor` of the arrivals, picked at random."""
    return replace(arrivals, burstiness=1 / (1 + (arrivals.scv - 1) / factor))


def coverage(system: System, given: Requests | None, share: float = PREDICTED) -> Trust:
    """Return low trust if a run has too few requests for its lanes."""
    smaller = system if given is not None else shrunk(system)[0]
    lanes = replicas(smaller)
    each = (run_length(smaller, share) if given is None else len(given)) // lanes
    if system.arrivals.kind == "closed" or lanes == 1 or each >= FEW:
        return Trust(True)
    return Trust.of(f"a simulation would give each of {lanes} replicas {each} requests")


def simulated(
    system: System, rate: float, given: Requests | None, share: float = PREDICTED
) -> SimulationResult:
    """Return one run of a system at a rate [requests/s]; a closed loop sets its own.

    given : the requests to run instead of sampling the workload; share : as in `run_length`
    """
    if system.arrivals.kind == "closed":
        return simulate(system, None, given=given)
    smaller, factor = (system, 1.0) if given is not None else shrunk(system)
    return simulate(smaller, rate / factor, requests=run_length(smaller, share), given=given)


def saturation(system: System, given: Requests | None) -> float:
    """Return the highest completion rate that a run of the system shows [requests/s].

    All requests wait from the start, so that neither gaps nor routing matter: lanes take turns.
    """
    if system.arrivals.kind != "closed":
        system = replace(system, arrivals=Arrivals(), routing="round_robin")
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
        ),
        refused=float(result.refused.mean()),
    )


def busiest(result: SimulationResult) -> float:
    """Return the largest share of the run that a replica spent in steps [1]."""
    return max(float(np.max(pool.utilisation)) for pool in result.pools)


def mean_batch(result: SimulationResult) -> float:
    """Return the mean sequences per step of the (decode) pool."""
    return float(np.mean(result.pools[-1].batch))


def simulated_goodput(
    system: System, target: Target, start: Goodput, given: Requests | None = None
) -> Goodput:
    """Return the goodput by simulation on common random numbers, near the analytic one.

    The interval is over replications; `at` are the latencies of one run at the goodput. Where a
    run would tell little about so many lanes, the analytic answer stays, with that reason.
    """
    smaller, factor = (system, 1.0) if given is not None else shrunk(system)
    enough = coverage(system, given, target.strictest)
    if not enough.high:
        return replace(start, trust=start.trust & enough)
    running = start.at.mean_batch if start.at.status is LatencyStatus.OK else 0.0
    found = crossing(
        smaller,
        target,
        requests=run_length(smaller, target.strictest, running),
        replications=REPLICATIONS,
        near=start.rate / factor or None,
        given=given,
    )
    if found.rate <= 0:
        status = LatencyStatus.SOME_REFUSED if found.limit is Limit.REFUSED else start.status
        return replace(start, rate=0.0, low=0.0, high=0.0, status=status, detail=found.limit.value)
    rate = found.rate * factor
    result = simulated(system, rate, given, target.strictest)
    return Goodput(
        rate=rate,
        low=found.low * factor,
        high=found.high * factor,
        binding=Binding.of("stability" if found.limit is Limit.SATURATION else found.binding),
        at=as_latencies(result, rate, found.saturation * factor),
        trust=certainty(found),
        status=LatencyStatus.OK,
    )


def certainty(found: SimulatedGoodput) -> Trust:
    """Return low trust if replications differ by too much to tell the goodput."""
    half = (found.high - found.low) / 2 / found.rate
    return Trust(True) if half <= SURE else Trust.of(f"simulated to ± {half:.0%} only")
