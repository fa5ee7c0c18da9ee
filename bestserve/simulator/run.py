"""`simulate`: one run of a system, from numbers to a `SimulationResult`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bestserve.errors import InputError
from bestserve.models.system import Disaggregated, Lane, System
from bestserve.simulator import routing as routes
from bestserve.simulator.coupled import run_coupled
from bestserve.simulator.inputs import (
    BACK_ROUTES,
    ROUTES,
    Requests,
    arrival_times,
    sample_lengths,
    stream,
)
from bestserve.simulator.layout import (
    ARRIVAL,
    BATCH,
    BUSY,
    CACHED,
    EVICTED,
    EVICTIONS,
    FIRST,
    KV,
    LAST,
    OUTPUT,
    PEAK,
    PREFILL,
    PROMPT,
    READY,
    SAMPLES,
    SERIES_BATCH,
    SERIES_KV,
    SERIES_TIME,
    START,
    STEPS,
    UNLIMITED,
)
from bestserve.simulator.pool import (
    NOBODY,
    Pool,
    kv_blocks,
    new_pool,
    run_assigned,
    run_routed,
)
from bestserve.simulator.result import PoolUse, SimulationResult, Status
from bestserve.simulator.transfer import share_link

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

OPEN_WARMUP, OPEN_COOLDOWN = 0.05, 0.02
"""Trimmed in open runs: the start-up transient, and the tail whose load runs out."""


def simulate(
    system: System,
    rate: float | None = None,
    *,
    requests: int = 20000,
    seed: int = 0,
    warmup: float | None = None,
    cooldown: float | None = None,
    given: Requests | None = None,
) -> SimulationResult:
    """Simulate a serving system step by step and return what happened to every request.

    Parameters
    ----------
    system : collocated or disaggregated replicas with workload and arrivals
    rate : arrivals over the whole system [req/s]; not needed for closed loops, nor for traces
        that are to keep their own speed
    requests : how many to simulate; closed loops and `given` bring their own number
    seed : ≥ 0; equal seeds give equal inputs at every rate
    warmup, cooldown : shares of the requests, in order of arrival, that the statistics leave out
        at the start and the end [1]; default 0.05 and 0.02, and 0 for closed loops, whose initial
        burst belongs to the measurement
    given : the requests to run instead of sampling `system.lengths`

    Raises
    ------
    InputError : for a rate, length, share or count that cannot be simulated

    Two runs with equal arguments are equal.
    """
    if requests < 1:
        raise InputError(f"requests = {requests} must be ≥ 1")
    if seed < 0:
        raise InputError(f"seed = {seed} must be ≥ 0")
    closed = system.arrivals.kind == "closed"
    n = _count(system, requests, given)
    if given is None:
        given = sample_lengths(system.lengths, n, seed)
    asked = math.nan if rate is None or closed else float(rate)
    if not closed and rate is None and system.arrivals.kind != "trace":
        raise InputError("open arrivals need a request rate [req/s]")
    scheduled = arrival_times(system.arrivals, asked, n, seed)
    trim = (
        (0.0 if closed else OPEN_WARMUP) if warmup is None else warmup,
        (0.0 if closed else OPEN_COOLDOWN) if cooldown is None else cooldown,
    )
    if not (trim[0] >= 0 and trim[1] >= 0 and trim[0] + trim[1] < 1):
        raise InputError(f"warmup {trim[0]} and cooldown {trim[1]} must be ≥ 0 and leave requests")
    return _run(system, asked, given, scheduled, seed, trim)


def _count(system: System, requests: int, given: Requests | None) -> int:
    if given is not None:
        return len(given)
    if system.arrivals.kind == "closed":
        if system.arrivals.num_prompts < 1:
            raise InputError("closed-loop arrivals need num_prompts ≥ 1")
        return system.arrivals.num_prompts
    return requests


def _facts(given: Requests) -> NDArray[np.int32]:
    facts = np.zeros((len(given), 8), dtype=np.int32)
    facts[:, PROMPT] = given.input_len
    facts[:, OUTPUT] = given.output_len
    if given.cached is not None:
        # An engine always computes the last prompt token, whose output it needs.
        facts[:, CACHED] = np.minimum(given.cached, facts[:, PROMPT] - 1)
    return facts


def _never_fits(lane: Lane, facts: NDArray[np.int32]) -> Bools:
    """Whether a request needs more KV than an empty lane has [n]."""
    blocks = kv_blocks(lane)
    if blocks == UNLIMITED:
        return np.zeros(len(facts), dtype=np.bool_)
    need = facts[:, PROMPT].astype(np.int64) + facts[:, OUTPUT] - 1
    return -(-need // lane.kv_block) > blocks


def _check_lane(lane: Lane) -> None:
    for name in ("max_num_seqs", "max_num_batched_tokens", "kv_block", "stream_interval"):
        if getattr(lane, name) < 1:
            raise InputError(f"{name} = {getattr(lane, name)} must be ≥ 1")
    if not 0.0 <= lane.kv_reserve <= 1.0:
        raise InputError(f"kv_reserve = {lane.kv_reserve} must be in 0 … 1")
    if not lane.kv_capacity_tokens > 0:
        raise InputError(f"kv_capacity_tokens = {lane.kv_capacity_tokens} must be > 0")


def _draws(routing: str, lanes: int, n: int, seed: int, purpose: int) -> Floats:
    if lanes == 1 or routing not in ("random", "power_of_two"):
        return np.zeros((n if lanes > 1 and routing in routes.STATIC else 0, 2))
    return stream(seed, purpose).random((n, 2))


def _open(
    pool: Pool,
    routing: str,
    draws: Floats,
    times: Floats,
    facts: NDArray[np.int32],
    refused: Bools,
) -> NDArray[np.int32]:
    lanes = np.zeros(len(times), dtype=np.int32)
    count = len(pool.clock)
    if count == 1 or routing in routes.STATIC:
        if count > 1:
            served = ~refused
            lanes[served] = routes.assign(routing, draws, count)[: np.count_nonzero(served)]
        run_assigned(pool, times, facts, lanes, refused, NOBODY)
    else:
        run_routed(pool, times, facts, lanes, refused, NOBODY, routes.CODES[routing], draws)
    return lanes


def _run(
    system: System,
    rate: float,
    given: Requests,
    scheduled: Floats,
    seed: int,
    trim: tuple[float, float],
) -> SimulationResult:
    n = len(given)
    tandem = isinstance(system, Disaggregated)
    front_lane = system.prefill if isinstance(system, Disaggregated) else system.lane
    back_lane = system.decode if isinstance(system, Disaggregated) else system.lane
    front_count = system.prefill_replicas if isinstance(system, Disaggregated) else system.replicas
    back_count = system.decode_replicas if isinstance(system, Disaggregated) else 0
    for lane in (front_lane, back_lane):
        _check_lane(lane)
    if front_count < 1 or (tandem and back_count < 1):
        raise InputError("replica counts must be ≥ 1")

    facts = _facts(given)
    whole_output = facts[:, OUTPUT].copy()
    back_facts = facts.copy() if tandem else facts[:0]
    if tandem:
        facts[:, OUTPUT] = 1
        back_facts[:, READY] = 1
        # The prefix cache is the prefill instance's; a decode instance that recomputes has none.
        back_facts[:, CACHED] = 0
    refused = _never_fits(front_lane, facts)
    if tandem:
        refused |= _never_fits(back_lane, back_facts) & (whole_output > 1)
    times = np.full((n, 4), -1.0)
    back_times = np.full((len(back_facts), 4), -1.0)
    front = new_pool(front_lane, front_count, stream=not tandem)
    back = new_pool(back_lane, back_count)
    draws = _draws(system.routing, front_count, n, seed, ROUTES)
    back_draws = _draws(system.routing, back_count, n, seed, BACK_ROUTES)
    transfer = system.transfer if isinstance(system, Disaggregated) else None
    work = transfer.seconds_per_token * (1.0 - transfer.overlap) if transfer else 0.0
    arrivals = system.arrivals
    cap = arrivals.concurrency if arrivals.kind == "closed" else arrivals.cap
    if arrivals.kind == "closed" and cap < 1:
        raise InputError("closed-loop arrivals need concurrency ≥ 1")

    back_lanes = np.full(n, -1, dtype=np.int32)
    if cap > 0:
        lanes = np.zeros(n, dtype=np.int32)
        think = arrivals.think if arrivals.kind == "closed" else 0.0
        run_coupled(
            front,
            back,
            times,
            facts,
            lanes,
            back_times,
            back_facts,
            back_lanes,
            refused,
            scheduled,
            cap,
            np.array([think, front_lane.t_req, front_lane.t_req_token]),
            np.array(
                [transfer.latency, work, float(transfer.shared)] if transfer else [0.0, 0.0, 0.0]
            ),
            routes.CODES[system.routing],
            draws,
            back_draws,
        )
    else:
        times[:, ARRIVAL] = scheduled
        lanes = _open(front, system.routing, draws, times, facts, refused)
        if transfer is not None:
            ids = np.flatnonzero(~refused & (whole_output > 1))
            sent = times[ids, LAST]
            ids = ids[np.argsort(sent, kind="stable")]
            sent = times[ids, LAST]
            works = work * facts[ids, PROMPT]
            if transfer.shared:
                arrived = share_link(sent, works, lanes[ids], front_count)
            else:
                arrived = sent + works
            arrived += transfer.latency
            order = np.lexsort((ids, arrived))
            ids, arrived = ids[order], arrived[order]
            queue_times = back_times[ids]
            queue_times[:, ARRIVAL] = arrived
            queue_facts = back_facts[ids]
            none = np.zeros(len(ids), dtype=np.bool_)
            back_lanes[ids] = _open(
                back, system.routing, back_draws, queue_times, queue_facts, none
            )
            back_times[ids] = queue_times
            back_facts[ids] = queue_facts

    start, first, last = times[:, START], times[:, FIRST], times[:, LAST]
    preemptions = facts[:, EVICTIONS]
    if tandem:
        decoded = back_times[:, LAST] >= 0
        last = np.where(decoded, back_times[:, LAST], last)
        if back_lane.stream_interval > 1:
            first = np.where(decoded, back_times[:, FIRST], first)
        preemptions = preemptions + back_facts[:, EVICTIONS]
    shift = front_lane.t_req + front_lane.t_req_token * facts[:, PROMPT]
    lanes[refused] = -1
    start = np.where(refused, np.nan, start)
    kept = ~refused
    kept[: int(trim[0] * n)] = False
    kept[n - int(trim[1] * n) :] = False
    end = max(float(times[:, LAST].max()), float(back_times[:, LAST].max(initial=0.0)))
    pools = [_use(front, end)] + ([_use(back, end)] if tandem else [])
    return SimulationResult(
        status=(
            Status.ALL_REFUSED
            if refused.all()
            else Status.SOME_REFUSED
            if refused.any()
            else Status.OK
        ),
        rate=rate,
        seed=seed,
        arrival=times[:, ARRIVAL].copy(),
        start=start,
        first_token=np.where(refused, np.nan, first + shift),
        last_token=np.where(refused, np.nan, last + shift),
        input_len=facts[:, PROMPT].copy(),
        output_len=whole_output,
        preemptions=preemptions.copy(),
        replica=lanes,
        decode_replica=back_lanes,
        kept=kept,
        pools=tuple(pools),
        concurrency=cap,
    )


def _use(pool: Pool, end: float) -> PoolUse:
    clock, state = pool.clock, pool.state
    busy = clock[:, BUSY]
    idle = np.where(busy > 0, busy, 1.0)
    span = end if end > 0 else 1.0
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
        batch=clock[:, BATCH] / idle,
        kv=clock[:, KV] / idle,
        kv_peak=state[:, PEAK].astype(np.float64),
        steps=state[:, STEPS].copy(),
        preemptions=state[:, EVICTED].copy(),
        series=tuple(series),
    )
