"""A lane's next step; of decodes alone, with all that follow until something happens."""

from __future__ import annotations

import math

from bestserve.arrays import Floats, Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.models.step.step_time_jit import A_SEQ, A_STEP, PHI, A, K, token_time
from bestserve.simulator.block_cache import Cache
from bestserve.simulator.departures import leave_blocks, let_go
from bestserve.simulator.drafts import verify
from bestserve.simulator.heap import (
    ITERATION_SHIFT,
)
from bestserve.simulator.kv_blocks import (
    give_room,
)
from bestserve.simulator.layout import (
    AHEAD,
    ARRIVAL,
    BATCH,
    BLOCK,
    BLOCKS,
    BUSY,
    CONTEXT,
    DECODING,
    DRAFT_CONTEXT,
    DRAFT_TIME,
    DRAFT_TOKEN,
    DRAFTS,
    FORMED,
    GROWING,
    GROWING_CONTEXT,
    HEAD,
    HELD,
    ITERATION,
    JOURNAL_FIRST,
    JOURNAL_GROWTH,
    JOURNAL_START,
    JOURNAL_STEPS,
    KV,
    LEAVING,
    LEAVING_BLOCKS,
    NOW,
    PEAK,
    PREFILL,
    PROMPT_TOKENS,
    RIDES,
    RIDING,
    SAMPLES,
    SAVED,
    SEEN,
    SERIES_BATCH,
    SERIES_KV,
    SERIES_LENGTH,
    SERIES_TIME,
    SPLIT,
    STEPPING,
    STEPS,
    STRIDE,
    T_END,
    Pool,
)
from bestserve.simulator.reading import read_on

BUSY_NOW = -1.0
"""In place of a time: the lane goes on at once."""


@njit(cache=True)
def long_step(tokens: int, costs: Floats, moe: Floats) -> float:
    """Return what `token_time` returns, for steps longer than the table [s]."""
    return token_time(float(tokens), costs, moe)


@njit(cache=True)
def tokens_cost(tokens: int, table: Floats, costs: Floats, moe: Floats) -> float:
    """Return the part of the step time that depends on the token count alone [s]."""
    return table[tokens] if tokens < table.size else long_step(tokens, costs, moe)


@njit(cache=True)
def steps_to(gap: float, first: float, growth: float) -> int:
    """Return the least n ≥ 1 with n·first + growth·n(n−1)/2 ≥ gap."""
    b = first - 0.5 * growth
    n = math.ceil(2.0 * gap / (b + math.sqrt(b * b + 2.0 * growth * gap)))
    n = max(n, 1)
    # The root is rounded; the boundary itself decides.
    while n * first + growth * (0.5 * n * (n - 1)) < gap:
        n += 1
    while n > 1 and (n - 1) * first + growth * (0.5 * (n - 1) * (n - 2)) >= gap:
        n -= 1
    return n


@njit(cache=True)
def sample(series: Floats, state: Ints, lane: int, now: float, batch: int, kv: int) -> None:
    """Keep one point of the lane's series; when full, drop every second one, now and later."""
    n = state[lane, SAMPLES]
    if n == SERIES_LENGTH:
        for i in range(SERIES_LENGTH // 2):
            for j in range(3):
                series[lane, i, j] = series[lane, 2 * i, j]
        n = SERIES_LENGTH // 2
        state[lane, STRIDE] *= 2
    series[lane, n, SERIES_TIME] = now
    series[lane, n, SERIES_BATCH] = batch
    series[lane, n, SERIES_KV] = kv
    state[lane, SAMPLES] = n + 1


@njit(cache=True)
def write(
    journals: Floats, lane: int, entry: int, now: float, n: int, first: float, growth: float
) -> None:
    """Note n decode steps from `now` on, the first of which takes `first` [s]."""
    journals[lane, entry, JOURNAL_START] = now
    journals[lane, entry, JOURNAL_STEPS] = n
    journals[lane, entry, JOURNAL_FIRST] = first
    journals[lane, entry, JOURNAL_GROWTH] = growth


@njit(cache=True, inline=True)
def end_step(lane: int, pool: Pool, facts: Ints32) -> None:
    """End the step under way: the context of each decode in it grows, by a token or more."""
    s, c = pool.state[lane], pool.clock[lane]
    c[NOW] = c[T_END]
    s[STEPPING] = 0
    if s[RIDING] != 0 and pool.limits[DRAFTS] > 0:
        verify(lane, pool, facts)
    elif s[RIDING] != 0:
        s[ITERATION] += 1
        s[CONTEXT] += s[DECODING]
        s[GROWING_CONTEXT] += s[GROWING]


@njit(cache=True, inline=True)
def idle_until(
    lane: int,
    until: float,
    before: float,
    pool: Pool,
    times: Floats,
    facts: Ints32,
    cache: Cache,
) -> float:
    """Return when a lane at a boundary needs attention again; `BUSY_NOW` if a step is to be formed.

    An idle lane goes on to the next arrival. until, before : as of `advance`
    """
    s, c = pool.state[lane], pool.clock[lane]
    if c[NOW] > until or c[NOW] >= before:
        return float(c[NOW])
    if pool.limits[AHEAD] == 0:
        c[FORMED] = c[NOW]
    if s[DECODING] == 0 and s[SPLIT] < 0:
        if s[HEAD] < 0:
            let_go(lane, pool, facts, cache)
            return math.inf
        arrival = times[s[HEAD], ARRIVAL]
        if arrival > c[FORMED]:
            if arrival > c[NOW]:
                if arrival > until or arrival >= before:
                    return float(arrival)
                c[NOW] = arrival
            let_go(lane, pool, facts, cache)
            c[FORMED] = c[NOW]
        # An idle lane may count from 0 again, which keeps packed iterations small.
        s[ITERATION] = 0
    return BUSY_NOW


@njit(cache=True, inline=True)
def start_step(
    lane: int,
    pool: Pool,
    prompts: int,
    tokens: int,
    pairs: float,
    facts: Ints32,
    cache: Cache,
) -> None:
    """Start a step with prompts, or the one after an eviction; decodes ride along or stand still.

    prompts, tokens, pairs : of what `admit` took
    """
    s, c = pool.state[lane], pool.clock[lane]
    costs, decoding = pool.costs, s[DECODING]
    kv = s[CONTEXT] + s[PROMPT_TOKENS]
    riding = pool.limits[RIDES] != 0 or prompts == 0
    batch = prompts + decoding if riding else prompts
    verified = pool.widths[decoding] if riding else 0
    device = tokens_cost(tokens + verified, pool.table, costs, pool.moe) + costs[A] * pairs
    drafting = costs[DRAFT_TOKEN] * tokens
    if riding:
        device += costs[K] * s[CONTEXT]
        beside = pool.beside[decoding]
        drafting += beside[DRAFT_TIME] + beside[DRAFT_CONTEXT] * s[CONTEXT]
        if prompts == 0:
            drafting -= beside[SAVED]
    duration = costs[A_STEP] + costs[A_SEQ] * (prompts + verified)
    duration += (costs[PHI] if prompts > 0 else 1.0) * device + drafting
    give_room(lane, s[GROWING_CONTEXT], s[ITERATION], pool, cache)
    let_go(lane, pool, facts, cache)
    c[FORMED] = c[NOW]
    c[T_END] = c[NOW] + duration
    s[RIDING] = riding
    s[STEPPING] = 1
    s[STEPS] += 1
    c[BUSY] += duration
    if prompts > 0:
        c[PREFILL] += duration
    c[BATCH] += duration * batch
    c[KV] += duration * kv
    if s[SEEN] < pool.journals.shape[1]:
        write(pool.journals, lane, s[SEEN], c[NOW], 1 if riding else 0, duration, 0.0)
    s[SEEN] += 1
    if s[SEEN] % s[STRIDE] == 0:
        sample(pool.series, pool.state, lane, c[NOW], batch, kv)


@njit(cache=True, inline=True)
def jump(
    lane: int,
    until: float,
    pool: Pool,
    times: Floats,
    facts: Ints32,
    waits: bool,
    cache: Cache,
) -> float:
    """Jump over decode steps: to the next departure, a full KV cache, an arrival.

    waits : whether the head of the queue is still to come. Returns the end of the jump if that is
    after `until`, so that it is not made [s], else `BUSY_NOW`
    """
    s, c = pool.state[lane], pool.clock[lane]
    limits, costs = pool.limits, pool.costs
    block, decoding = limits[BLOCK], s[DECODING]
    kv = s[CONTEXT] + s[PROMPT_TOKENS]
    n = (pool.heaps[lane, 0] >> ITERATION_SHIFT) - s[ITERATION]
    if s[GROWING] > 0:
        free = (
            (limits[BLOCKS] - s[LEAVING_BLOCKS] - s[HELD]) * block
            - s[GROWING_CONTEXT]
            - s[GROWING] * (block - 1)
        )
        n = min(n, max(free // s[GROWING] + 1, 1))
    t0 = costs[A_STEP] + costs[A_SEQ] * decoding
    t0 += tokens_cost(decoding, pool.table, costs, pool.moe)
    t0 += costs[K] * s[CONTEXT]
    slope = costs[K] * decoding
    duration = n * t0 + slope * (0.5 * n * (n - 1))
    if waits:
        gap = times[s[HEAD], ARRIVAL] - c[NOW]
        if gap < duration:
            known = steps_to(gap, t0, slope) if gap > 0.0 else 0
            n = min(n, known + 1 if limits[AHEAD] != 0 else known)
            duration = n * t0 + slope * (0.5 * n * (n - 1))
    elif s[LEAVING] > 0 and s[HEAD] >= 0:
        n = 1
        duration = t0
    if s[LEAVING] > 0:
        # the first of these steps is formed before those who end have left their blocks
        give_room(lane, s[GROWING_CONTEXT], s[ITERATION], pool, cache)
    if c[NOW] + duration > until:
        leave_blocks(lane, pool, facts, cache)
        return float(c[NOW] + duration)
    half = 0.5 * n * (n - 1)
    s[STEPS] += n
    c[BUSY] += duration
    c[BATCH] += duration * decoding
    c[KV] += (
        n * t0 * kv
        + half * (decoding * t0 + slope * kv)
        + decoding * slope * half * (2 * n - 1) / 3.0
    )
    if s[SEEN] < pool.journals.shape[1]:
        write(pool.journals, lane, s[SEEN], c[NOW], n, t0, slope)
    s[SEEN] += 1
    if s[SEEN] % s[STRIDE] == 0:
        sample(pool.series, pool.state, lane, c[NOW], decoding, kv)
    let_go(lane, pool, facts, cache)
    c[FORMED] = c[NOW] + (duration - t0 - slope * (n - 1))
    context = s[GROWING_CONTEXT] + (n - 1) * s[GROWING]
    give_room(lane, context, s[ITERATION] + n - 1, pool, cache)
    if pool.seen.shape[0] > 0:
        read_on(lane, pool, facts, n, t0, slope)
    c[NOW] += duration
    s[ITERATION] += n
    s[CONTEXT] += n * decoding
    s[GROWING_CONTEXT] += n * s[GROWING]
    s[PEAK] = max(s[PEAK], s[CONTEXT] - decoding + s[PROMPT_TOKENS])
    return BUSY_NOW
