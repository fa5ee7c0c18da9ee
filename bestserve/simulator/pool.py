"""A pool of equal lanes under open arrivals: every arrival time is known beforehand."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from bestserve.arrays import Bools, Floats, Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.models.step.step_time_jit import token_time
from bestserve.models.system import Lane
from bestserve.simulator.block_cache import NO_CACHE, Cache
from bestserve.simulator.heap import EVENTS_PER_REQUEST
from bestserve.simulator.lane import advance
from bestserve.simulator.layout import (
    ARRIVAL,
    ASKED,
    CACHED,
    CLOCK_WIDTH,
    GENERATED,
    HEAD,
    JOURNAL_FIRST,
    JOURNAL_GROWTH,
    JOURNAL_START,
    JOURNAL_STEPS,
    MOVED_TOKENS,
    NEXT,
    OUTSTANDING,
    PROMPT,
    QUEUED_TOKENS,
    READY,
    SEEN,
    SERIES_LENGTH,
    SPLIT,
    STATE_WIDTH,
    STRIDE,
    T_NEXT,
    TAIL,
    UNLIMITED,
    Pool,
)
from bestserve.simulator.predicted import quickest
from bestserve.simulator.ranks import insert
from bestserve.simulator.reading import BINS, SEEN_WIDTH
from bestserve.simulator.routing import LEAST_TTFT, choose, settle

TABLE_LENGTH = 1 << 14
"""Token counts whose step cost is tabulated; longer steps compute it."""

NOBODY = np.empty(0, dtype=np.int64)
NO_CHANCES = np.zeros((1, 0))


@njit(cache=True)
def tabulate(length: int, costs: Floats, moe: Floats) -> Floats:
    """Return the token part of the step time for 0 … length − 1 tokens [s]."""
    table = np.empty(length)
    for tokens in range(length):
        table[tokens] = token_time(float(tokens), costs, moe)
    return table


@lru_cache(maxsize=64)
def _table(step: object, length: int) -> Floats:
    table: Floats = tabulate(length, step.coefficients(), step.moe_table())  # type: ignore[attr-defined]
    return table


def kv_blocks(lane: Lane) -> int:
    """Return the KV capacity in whole blocks [blocks]."""
    if not math.isfinite(lane.kv_capacity_tokens):
        return UNLIMITED
    return int(lane.kv_capacity_tokens // lane.kv_block)


def step_widths(lane: Lane) -> Ints:
    """Return the tokens that 0, 1, … decodes take of a step [slots + 1] [tokens].

    A step holds one token of every decode and its drafts, so no more run than the budget holds.
    """
    slots = min(lane.max_num_seqs, lane.max_num_batched_tokens)
    decodes = np.arange(slots + 1)
    widths = decodes * (lane.speculation.drafts(decodes) + 1)
    beyond = np.flatnonzero(widths > lane.max_num_batched_tokens)
    return widths[: beyond[0]] if beyond.size else widths


def new_pool(
    lane: Lane,
    lanes: int,
    *,
    stream: bool = True,
    journal: int = 0,
    accept: Floats = NO_CHANCES,
    stepwise: bool = False,
    ranks: Ints = NOBODY,
) -> Pool:
    """Return `lanes` idle lanes; without `stream` the first message is the first token.

    journal : jumps and steps to note per lane; accept : as of `Pool`; stepwise : whether something
        is decided at each boundary, as drafts always are; ranks : as of `Pool`
    """
    known = _tables(lane, stream, stepwise)
    slots = len(known["widths"]) - 1
    state = np.zeros((lanes, STATE_WIDTH), dtype=np.int64)
    state[:, [HEAD, TAIL, SPLIT]] = -1
    state[:, STRIDE] = 1
    clock = np.zeros((lanes, CLOCK_WIDTH))
    clock[:, T_NEXT] = np.inf
    clock[:, ASKED] = -np.inf
    return Pool(
        clock=clock,
        state=state,
        heaps=np.empty((lanes, EVENTS_PER_REQUEST * slots + 1), dtype=np.int64),
        phases=np.zeros((lanes, lane.kv_block), dtype=np.int64),
        joins=np.empty((lanes, 2 * slots), dtype=np.int64),
        series=np.empty((lanes, SERIES_LENGTH, 3)),
        journals=np.empty((lanes, journal, 4)),
        seen=np.empty((0, SEEN_WIDTH)),
        gaps=np.empty((0, BINS)),
        ranks=ranks,
        accept=accept,
        **known,
    )


@lru_cache(maxsize=64)
def _tables(lane: Lane, stream: bool, stepwise: bool) -> dict[str, Any]:
    """Return the fields of `Pool` that runs of a lane share: they only read them."""
    widths = step_widths(lane)
    slots = len(widths) - 1
    policy = lane.scheduling
    limits = np.array(
        [
            policy.splits,
            policy.rides,
            policy.most_prompts or slots,
            policy.room(lane.max_num_batched_tokens),
            slots,
            lane.max_num_batched_tokens,
            lane.kv_block,
            kv_blocks(lane),
            lane.stream_interval if stream else 1,
            lane.async_scheduling,
            lane.speculation.most,
            stepwise or lane.speculation.most > 0,
        ],
        dtype=np.int64,
    )
    length = min(TABLE_LENGTH, max(lane.max_num_batched_tokens, slots) + 1)
    return {
        "limits": limits,
        "costs": np.append(
            lane.step.coefficients(), [lane.kv_reserve, lane.speculation.draft_token]
        ),
        "moe": lane.step.moe_table(),
        "table": _table(lane.step, length),
        "widths": widths,
        "beside": _beside(lane, slots),
    }


def _beside(lane: Lane, slots: int) -> Floats:
    """Return `Pool.beside`."""
    drafting, decodes = lane.speculation, np.arange(slots + 1)
    return np.ascontiguousarray(
        np.stack(
            (
                drafting.draft_time(decodes),
                drafting.drafts(decodes) * drafting.draft_context,
                drafting.saved(decodes, lane.step),
            ),
            axis=1,
        )
    )


@njit(cache=True)
def append(lane: int, request: int, state: Ints, facts: Ints32) -> None:
    """Put a request at the end of a lane's queue."""
    tail = state[lane, TAIL]
    facts[request, NEXT] = -1
    if state[lane, HEAD] < 0:
        state[lane, HEAD] = request
    else:
        facts[tail, NEXT] = request
    state[lane, TAIL] = request
    state[lane, OUTSTANDING] += 1
    tokens = facts[request, PROMPT] + facts[request, GENERATED]
    state[lane, QUEUED_TOKENS] += tokens
    if facts[request, READY] != 0:
        state[lane, MOVED_TOKENS] += tokens


@njit(cache=True)
def enqueue(lane: int, request: int, pool: Pool, facts: Ints32) -> None:
    """Put a request into a lane's queue where its rank places it."""
    if pool.ranks.shape[0] == 0:
        append(lane, request, pool.state, facts)
        return
    pool.state[lane, OUTSTANDING] += 1
    tokens = facts[request, PROMPT] + facts[request, GENERATED]
    pool.state[lane, QUEUED_TOKENS] += tokens
    if facts[request, READY] != 0:
        pool.state[lane, MOVED_TOKENS] += tokens
    insert(lane, request, pool, facts)


@njit(cache=True)
def append_all(lanes: Ints32, refused: Bools, state: Ints, facts: Ints32) -> None:
    """Put all requests into the queues of their lanes."""
    for r in range(lanes.shape[0]):
        if not refused[r]:
            append(lanes[r], r, state, facts)


def run_assigned(
    pool: Pool,
    times: Floats,
    facts: Ints32,
    lanes: Ints32,
    refused: Bools,
    cache: Cache = NO_CACHE,
) -> None:
    """Simulate requests, in order of arrival, that know their lane beforehand."""
    append_all(lanes, refused, pool.state, facts)
    for lane in range(len(pool.clock)):
        advance(lane, math.inf, math.inf, pool, times, facts, NOBODY, cache)


@njit(cache=True)
def run_routed(
    pool: Pool,
    times: Floats,
    facts: Ints32,
    lanes: Ints32,
    refused: Bools,
    nobody: Ints,
    routing: int,
    draws: Floats,
    cache: Cache,
) -> None:
    """Simulate requests, in order of arrival, that are routed by the state of the lanes."""
    clock, state, phases, limits = pool.clock, pool.state, pool.phases, pool.limits
    costs, moe, table = pool.costs, pool.moe, pool.table
    number = 0
    for r in range(times.shape[0] + 1):
        last = r == times.shape[0]
        if not last and refused[r]:
            continue
        now = math.inf if last else times[r, ARRIVAL]
        for lane in range(clock.shape[0]):
            if clock[lane, T_NEXT] <= now:
                advance(lane, now, now, pool, times, facts, nobody, cache)
        if last:
            break
        if cache.on:
            settle(now, clock, state, phases, limits, costs, moe, table, cache)
        if routing == LEAST_TTFT:
            lane, _ = quickest(number, now, facts[r, PROMPT] - facts[r, CACHED], pool, facts)
        else:
            lane = choose(routing, number, draws, now, clock, state, costs, moe, table, cache, r)
        number += 1
        lanes[r] = lane
        append(lane, r, state, facts)
        clock[lane, T_NEXT] = min(clock[lane, T_NEXT], now)


def step_ends(pool: Pool, lane: int) -> Floats:
    """Return the ends of all noted steps in which decodes took part, ascending [s]."""
    entries = pool.journals[lane, : pool.state[lane, SEEN]]
    n = entries[:, JOURNAL_STEPS].astype(np.int64)
    last = np.cumsum(n)
    step = np.arange(1, n.sum() + 1) - np.repeat(last - n, n)
    start, first, growth = (
        np.repeat(entries[:, i], n) for i in (JOURNAL_START, JOURNAL_FIRST, JOURNAL_GROWTH)
    )
    ends: Floats = start + (step * first + growth * (0.5 * step * (step - 1)))
    return ends
