"""`simulate`: one run of a system, from numbers to a `SimulationResult`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.errors import InputError
from bestserve.models.system import System
from bestserve.models.token_times import Reader, Readers
from bestserve.simulator.block_cache import HIT
from bestserve.simulator.inputs import Requests
from bestserve.simulator.layout import (
    ARRIVAL,
    BATCH,
    BLOCK,
    BUSY,
    EVICTED,
    KV,
    LAST,
    PEAK,
    PREFILL,
    PROMPT,
    SAMPLES,
    SEEN,
    SERIES_BATCH,
    SERIES_KV,
    SERIES_TIME,
    STEPS,
    Pool,
)
from bestserve.simulator.pool import step_ends
from bestserve.simulator.prepared import (
    Finished,
    Prepared,
    execute,
    front_end,
    prepare,
    request_times,
    stream_interval,
)
from bestserve.simulator.reading import LATEST, LONG, LONGEST, MESSAGES, MET, MISSED
from bestserve.simulator.readings import EVERYBODY, Readings
from bestserve.simulator.result import PoolUse, RunStatus, SimulationResult

OPEN_WARMUP, OPEN_COOLDOWN = 0.05, 0.02
"""Trimmed in open runs: the start-up transient, and the tail whose load runs out."""

FILLING = 0.5
"""Trimmed at the start of open runs with prefix caches, which start empty."""


def simulate(
    system: System,
    rate: float | None = None,
    *,
    requests: int = 20000,
    seed: int = 0,
    warmup: float | None = None,
    cooldown: float | None = None,
    given: Requests | None = None,
    record_steps: bool = False,
    reader: Reader | Readers | None = None,
) -> SimulationResult:
    """Simulate a serving system step by step and return what happened to every request.

    Parameters
    ----------
    system : replicas of any layout with workload and arrivals
    rate : arrivals over the whole system [req/s]; not needed for closed loops, nor for traces
        that are to keep their own speed
    requests : how many to simulate; closed loops and `given` bring their own number
    seed : ≥ 0; equal seeds give equal inputs at every rate
    warmup, cooldown : shares of the requests, in order of arrival, that the statistics leave out
        at the start and the end [1]; default 0.05 and 0.02, with prefix caches 0.5 and 0.02, and 0
        for closed loops, whose initial burst belongs to the measurement. Of open sessions, those
        after the last session's start are left out too.
    given : the requests to run instead of sampling `system.lengths`
    record_steps : keep the end of every step, for exact inter-token latencies; runs twice and
        needs 8 bytes a step
    reader : whose deadlines are watched token by token, into `SimulationResult.readings`

    Raises
    ------
    InputError : for a rate, length, share or count that cannot be simulated

    Two runs with equal arguments are equal.
    """
    closed = system.arrivals.kind == "closed"
    usual = usual_trim(system)
    if not closed and rate is None and system.arrivals.kind != "trace":
        raise InputError("open arrivals need a request rate [req/s]")
    trim = (
        usual[0] if warmup is None else warmup,
        usual[1] if cooldown is None else cooldown,
    )
    if not (trim[0] >= 0 and trim[1] >= 0 and trim[0] + trim[1] < 1):
        raise InputError(f"warmup {trim[0]} and cooldown {trim[1]} must be ≥ 0 and leave requests")
    prepared = prepare(system, requests, seed, given)
    asked = math.nan if rate is None or closed else float(rate)
    return run_prepared(prepared, asked, trim, record_steps=record_steps, reader=reader)


def usual_trim(system: System) -> tuple[float, float]:
    """Return the shares of a run that its statistics leave out at the start and the end [1]."""
    if system.arrivals.kind == "closed":
        return 0.0, 0.0
    return (OPEN_WARMUP if system.caching is None else FILLING), OPEN_COOLDOWN


def run_prepared(
    prepared: Prepared,
    rate: float,
    trim: tuple[float, float],
    *,
    record_steps: bool = False,
    reader: Reader | Readers | None = None,
) -> SimulationResult:
    """Run prepared inputs at one rate [req/s]; `trim` as warm-up and cool-down of `simulate`."""
    if isinstance(reader, Readers):
        if prepared.kinds is None:
            raise InputError("objectives of single classes need requests that say theirs")
        reader = reader.of(prepared.kinds, prepared.kind_names)
    counted = EVERYBODY
    if prepared.tree is None:
        counted = slice(int(trim[0] * len(prepared)), len(prepared) - int(trim[1] * len(prepared)))
    finished = execute(prepared, rate, reader=reader, counted=counted)
    if record_steps:
        lengths = [int(pool.state[:, SEEN].max(initial=0)) for pool in finished.pools]
        journal = (lengths[0], lengths[-1])
        finished = execute(prepared, rate, journal, reader, counted)
    arrival, start, first, last = request_times(prepared, finished)
    n = len(prepared)
    order, until = _by_arrival(prepared, arrival)
    refused = prepared.refused[order]
    end = min(n - int(trim[1] * n), until)
    # sessions that are few and long leave little between filling and the last one's start
    window = (min(int(trim[0] * n), end // 2) if until < n else int(trim[0] * n), end)
    kept = ~refused
    kept[: window[0]] = False
    kept[window[1] :] = False
    arrivals = prepared.system.arrivals
    status = RunStatus.OK
    if refused.any():
        status = RunStatus.ALL_REFUSED if refused.all() else RunStatus.SOME_REFUSED
    ends: tuple[tuple[np.ndarray, ...], ...] = ()
    if record_steps:
        ends = tuple(
            tuple(step_ends(pool, lane) for lane in range(len(pool.clock)))
            for pool in finished.pools
        )
    return SimulationResult(
        status=status,
        rate=rate,
        seed=prepared.seed,
        arrival=arrival[order],
        start=start[order],
        first_token=first[order],
        last_token=last[order],
        input_len=prepared.facts[order, PROMPT],
        output_len=prepared.output_len[order],
        preemptions=finished.evictions[order],
        replica=finished.replica[order],
        decode_replica=finished.decode_replica[order],
        window=window,
        kept=kept,
        pools=_uses(finished),
        front_end=front_end(prepared)[order],
        steps=finished.steps[order],
        stream_interval=stream_interval(prepared.system),
        burstiness=arrivals.burstiness,
        concurrency=arrivals.concurrency if arrivals.kind == "closed" else arrivals.cap,
        step_ends=ends,
        kinds=None if prepared.kinds is None else prepared.kinds[order],
        kind_names=prepared.kind_names,
        readings=None if reader is None else _readings(prepared, finished, reader, order),
        **_cached(prepared, finished, order),
    )


def _by_arrival(prepared: Prepared, arrival: Floats) -> tuple[Ints, int]:
    """Return the order in which requests arrived, and how many did while sessions started [n].

    Requests of sessions that were never sent, after a refused one, come last.
    """
    n, tree = len(prepared), prepared.tree
    if tree is None or tree.heads == n:
        return np.arange(n), n
    sent = arrival >= 0
    arrival[~sent] = arrival.max(initial=0.0)
    order = np.lexsort((np.arange(n), arrival, ~sent))
    if prepared.system.arrivals.kind == "closed":
        return order, n
    started = arrival[: tree.heads].max()
    return order, int(np.searchsorted(arrival[order], started, side="right"))


def _cached(prepared: Prepared, finished: Finished, order: Ints) -> dict[str, Any]:
    """Return what the result says of prefix caches."""
    cache = finished.cache
    if not cache.on:
        return {}
    block = finished.pools[0].limits[BLOCK]
    return {
        "cached": cache.found[order, HIT].astype(np.int32),
        "loaded": tuple(int(blocks * block) for blocks in cache.traffic),
    }


def _readings(prepared: Prepared, finished: Finished, reader: Reader, order: Ints) -> Readings:
    """Return what readers met, as they see it: from arrival on, front-end time included."""
    seen = finished.seen[order]
    latest = seen[:, LATEST] + front_end(prepared)[order] - finished.times[order, ARRIVAL]
    return Readings(
        reader=reader,
        latest=np.where(prepared.refused[order], math.nan, latest),
        met=seen[:, MET],
        missed=seen[:, MISSED],
        gaps=seen[:, MESSAGES],
        long_gaps=seen[:, LONG],
        longest_gap=seen[:, LONGEST],
        counts=finished.pools[-1].gaps.sum(axis=0),
    )


def _uses(finished: Finished) -> tuple[PoolUse, ...]:
    end = max(
        float(finished.times[:, LAST].max()), float(finished.decode_times[:, LAST].max(initial=0))
    )
    return tuple(_use(pool, end if end > 0 else 1.0) for pool in finished.pools)


def _use(pool: Pool, span: float) -> PoolUse:
    clock, state = pool.clock, pool.state
    busy = clock[:, BUSY]
    divisor = np.where(busy > 0, busy, 1.0)
    series = []
    for lane in range(len(clock)):
        points = pool.series[lane, : state[lane, SAMPLES]]
        series.append(
            (
                points[:, SERIES_TIME].copy(),
                points[:, SERIES_BATCH].copy(),
                points[:, SERIES_KV].copy(),
            )
        )
    return PoolUse(
        utilisation=busy / span,
        prefill_share=clock[:, PREFILL] / span,
        batch=clock[:, BATCH] / divisor,
        kv=clock[:, KV] / divisor,
        kv_peak=state[:, PEAK].astype(np.float64),
        steps=state[:, STEPS].copy(),
        preemptions=state[:, EVICTED].copy(),
        series=tuple(series),
    )
