"""Runs of the simulator under the protocol of a benchmark client."""

from __future__ import annotations

import dataclasses

import numpy as np

from bestserve.models.system import Arrivals, System
from bestserve.models.token_times import Reader
from bestserve.simulator import SimulationResult, simulate
from bestserve.validation.outcome import Outcome, UnpredictableError
from bestserve.validation.protocol import MAX_REQUESTS, Protocol
from bestserve.validation.shared_prefixes import behind_warming, warming, warming_gap

POOLED = 1500
"""A short random run is repeated with other seeds until this many requests are pooled."""

REPEATS = 4

STABLE = 0.9
"""Completed over offered rate below which a run taken as stationary had a growing queue."""


def sent_in_periods(arrivals: Arrivals, period: float) -> Arrivals:
    """Return arrivals of a client that sends at the ends of periods only; 0: whenever due [s]."""
    if period == 0.0:
        return arrivals
    return dataclasses.replace(arrivals, times=period * np.ceil(arrivals.times / period))


def runs_of(
    system: System, protocol: Protocol, reader: Reader | None = None
) -> list[SimulationResult]:
    """Simulate a system as its client drove it, several times where the run is short.

    reader : whose deadlines are watched

    Raises `UnpredictableError`: overloaded without end, or nothing completed.
    """
    requests = min(protocol.requests, MAX_REQUESTS)
    random = (
        not protocol.closed or len(system.lengths.inputs) > 1 or len(system.lengths.outputs) > 1
    )
    repeats = min(REPEATS, max(1, round(POOLED / requests))) if random else 1
    # A finite run counts as the client saw it: its start and its drain included.
    trim = None if protocol.steady else 0.0
    before = 0 if system.caching is None else warming(system.caching)
    if before and protocol.closed:
        arrivals = dataclasses.replace(system.arrivals, num_prompts=before + requests)
        system = dataclasses.replace(system, arrivals=arrivals)
    runs = []
    for seed in range(repeats):
        asked, rate = system, None
        if system.arrivals.kind not in ("closed", "trace"):
            rate = protocol.rate
            if before:
                gap = warming_gap(system, rate)
                counts = before, requests, seed
                times = behind_warming(system.arrivals, rate, gap, counts)
                times = sent_in_periods(times, protocol.client_period)
                asked, rate = dataclasses.replace(system, arrivals=times), None
        runs.append(
            simulate(
                asked,
                rate,
                requests=before + requests,
                seed=seed,
                warmup=before / (before + requests) if before else trim,
                cooldown=trim,
                reader=reader,
            )
        )
    if all(run.completed == 0 for run in runs):
        raise UnpredictableError(Outcome.DOES_NOT_FIT, runs[0].status.value)
    served = float(np.mean([run.throughput for run in runs]))
    if protocol.steady and served < STABLE * protocol.rate:
        raise UnpredictableError(Outcome.OVERLOADED, f"{protocol.rate:g} of {served:.3g} req/s")
    return runs
