"""Runs of one rate that grow until they tell what a prediction states.

Relative precision, sequentially: a run whose 95 % intervals are too wide is followed by one as much
longer as their squares ask for (Law, Simulation Modeling and Analysis, §9.4.1).
"""

from __future__ import annotations

import math
from collections.abc import Collection

from bestserve.answers.referee import PREDICTED
from bestserve.answers.simulated import Simulated
from bestserve.answers.witness import LEAST_GROWTH, MOST_REQUESTS, MOST_TIMES
from bestserve.models.system import System
from bestserve.models.token_times import Reader, Readers
from bestserve.models.trust import Trust
from bestserve.simulator import Requests, SimulationResult

ROUGH = 0.05
"""Relative half-width of a 95 % interval from which a figure counts as told only roughly [1]."""

BODY, TAIL = ("mean", "p90"), ("p99",)
"""Statistics that trust is about, and those whose doubts are said beside a high one."""


def telling_run(
    system: System,
    rate: float,
    given: Requests | None,
    running: float = 0.0,
    reader: Reader | Readers | None = None,
    most: float = math.inf,
) -> SimulationResult:
    """Return a run at a rate [req/s] that tells TTFT and TPOT to `ROUGH`, or the longest allowed.

    most : times as many requests as usual, at most

    given : the requests to run instead of sampling the workload: there are no more; running : those
    that a replica serves at a time, as far as known; reader : whose deadlines are watched. A closed
    loop sets its own rate and length.
    """
    times = 1
    while True:
        runs = Simulated(
            system=system,
            share=PREDICTED,
            times=times,
            running=running,
            given=given,
            reader=reader,
        )
        result = runs.run(rate)
        if given is not None or system.arrivals.kind == "closed":
            return result
        worst = max(shares(result).values())
        longest = min(most, MOST_TIMES, times * MOST_REQUESTS // runs.size)
        if worst <= ROUGH or longest < LEAST_GROWTH * times:
            return result
        wanted = max(1.3 * times * (worst / ROUGH) ** 2, LEAST_GROWTH * times)
        times = math.ceil(min(wanted, longest))


def shares(result: SimulationResult) -> dict[tuple[str, str], float]:
    """Return the half-width of each statistic's interval over its value, by metric and statistic.

    0 where there is nothing to tell, or where too few requests tell it.
    """
    found = {}
    for metric in ("ttft", "tpot"):
        run = result.summary(metric)
        for statistic in (*BODY, *TAIL):
            low, high = run.interval(statistic)
            share = (high - low) / (high + low) if high + low > 0 else 0.0
            found[metric, statistic] = share if math.isfinite(share) else 0.0
    return found


def told(result: SimulationResult) -> Trust:
    """Return low trust if a run tells a mean or a P90 only roughly; of a P99 that is only said."""
    body = roughly(result, BODY)
    return Trust.of(f"the run tells {body}") if body else Trust(True, tail_doubts(result))


def tail_doubts(result: SimulationResult) -> tuple[str, ...]:
    """Return what to say of 99th percentiles that a run tells only roughly."""
    tail = roughly(result, TAIL)
    return (f"99th percentiles: the run tells {tail}",) if tail else ()


def roughly(result: SimulationResult, statistics: Collection[str]) -> str:
    """Return which of some statistics a run tells only roughly, in words; empty: none."""
    return ", ".join(
        f"{statistic} {metric.upper()} to ±{share:.0%}"
        for (metric, statistic), share in shares(result).items()
        if statistic in statistics and share > ROUGH
    )
