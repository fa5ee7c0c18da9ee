"""Clients that wait: closed loops and caps on requests in flight, over one pool or two.

When a request may start depends on when others end, so lanes, transfers and clients advance
together: find the next instant at which anything happens, end what ends there, let arrive what
arrives there, then start the steps that begin there. Ends come before arrivals and arrivals
before starts, so that two things at one instant never depend on the order of the lanes.
"""

from __future__ import annotations

import math

import numpy as np

from bestserve.arrays import Bools, Floats, Ints32
from bestserve.host.compiled import njit
from bestserve.simulator.block_cache import FOLLOWER, Cache
from bestserve.simulator.cache_tiers import load
from bestserve.simulator.flowing import emptiest, flow_back, flow_out
from bestserve.simulator.hybrid import Mixed, place
from bestserve.simulator.lane import advance
from bestserve.simulator.layout import (
    ARRIVAL,
    BLOCK,
    CACHED,
    FIRST,
    LAST,
    OUTPUT,
    OUTSTANDING,
    PROMPT,
    READY,
    STREAM,
    T_NEXT,
    Pool,
)
from bestserve.simulator.pool import enqueue
from bestserve.simulator.predicted import quickest
from bestserve.simulator.reading import DUE
from bestserve.simulator.routing import LEAST_TTFT, choose, settle
from bestserve.simulator.time_heap import drop, put
from bestserve.simulator.transfer import link_add, link_end, link_next

FREE, TRANSFERRED, LOADED, SENT, FLOWED = range(5)
"""What happens to a request: its place in flight is free, its KV is transferred, its prefix is
loaded, it is sent as the next turn of a session, it goes on decoding on a prefill lane."""
KINDS = 5

# client[i], float64
THINK, T_REQ, T_REQ_TOKEN = range(3)
# link[i], float64
LATENCY, PER_TOKEN, SHARED, FLOWING = range(4)


@njit(cache=True, inline=True)
def answered(
    r: int, now: float, cache: Cache, client: Floats, pauses: Floats, facts: Ints32
) -> tuple[float, int]:
    """Return when the client of a request that ended acts on it, and what happens then [s].

    It sends the request that follows, after its pause, or is free for another after thinking.
    """
    event = KINDS * r + FREE
    pause = client[THINK]
    if cache.on:
        after = cache.plan[r, FOLLOWER]
        if after >= 0:
            event = KINDS * after + SENT
            pause = pauses[after]
    return now + pause + client[T_REQ] + client[T_REQ_TOKEN] * facts[r, PROMPT], event


@njit(cache=True)
def run_coupled(
    front: Pool,
    back: Pool,
    times: Floats,
    facts: Ints32,
    lanes: Ints32,
    back_times: Floats,
    back_facts: Ints32,
    back_lanes: Ints32,
    refused: Bools,
    scheduled: Floats,
    cap: int,
    client: Floats,
    link: Floats,
    routing: int,
    draws: Floats,
    back_draws: Floats,
    cache: Cache,
    uncached: Cache,
    pauses: Floats,
    mixed: Mixed,
) -> None:
    """Simulate requests that clients send when allowed.

    front, back : the pool that takes arrivals, and the decode pool (no lanes: collocated)
    scheduled : when a request is due [s], ascending; it leaves once fewer than `cap` are in flight
    client : think time, front-end time per request and per prompt token [s]: a place in flight is
        free again that long after the last token
    link : transfer latency [s], time per prompt token [s], 1 if concurrent transfers share,
        time per token of a decode that moves, which no prefill hides [s]
    cache : of the front pool, with the sessions, or none; uncached : none, for the back pool. With
        sessions, `scheduled` has their first requests, which have the lowest numbers, and `cap`
        counts sessions
    pauses : between an answer and a session's next request [n] [s]
    mixed : how a hybrid shares out prompts and decodes: a request decodes on the back pool if it
        has more tokens there than in front
    """
    clock, state, phases, joins = front.clock, front.state, front.phases, front.joins
    limits, costs, moe, table = front.limits, front.costs, front.moe, front.table
    b_clock, b_state, b_joins, b_limits = back.clock, back.state, back.joins, back.limits
    b_costs, b_moe, b_table = back.costs, back.moe, back.table
    n = scheduled.shape[0]
    two = b_clock.shape[0] > 0
    shared = two and link[SHARED] > 0.0
    senders = clock.shape[0] if shared else 0
    room = min(n, cap)
    sent = np.empty(room, dtype=np.int64)
    keys = np.empty(2 * room + 2)
    values = np.empty(2 * room + 2, dtype=np.int64)
    size = 0
    link_keys = np.empty((senders, room))
    link_values = np.empty((senders, room), dtype=np.int64)
    link_size = np.zeros(senders, dtype=np.int64)
    link_clock = np.zeros((senders, 2))
    done = np.empty(2 * joins.shape[1] + 1, dtype=np.int64)
    back_done = np.empty(2 * b_joins.shape[1] + 1, dtype=np.int64)
    following = 0
    flying = 0
    number = 0
    back_number = 0

    while True:
        now = math.inf
        if size > 0:
            now = keys[0]
        if following < n and flying < cap:
            now = min(now, max(scheduled[following], 0.0))
        for lane in range(clock.shape[0]):
            now = min(now, clock[lane, T_NEXT])
        for lane in range(b_clock.shape[0]):
            now = min(now, b_clock[lane, T_NEXT])
        for sender in range(senders):
            now = min(now, link_next(link_keys[sender], link_size[sender], link_clock[sender]))
        if now == math.inf:
            break

        for lane in range(clock.shape[0]):
            if clock[lane, T_NEXT] > now:
                continue
            ended = advance(lane, now, now, front, times, facts, done, cache)
            for i in range(ended):
                r = done[i]
                if two and back_facts[r, OUTPUT] > facts[r, OUTPUT]:
                    if b_limits[STREAM] == 1:
                        back_times[r, FIRST] = times[r, LAST]
                    work = link[PER_TOKEN] * facts[r, PROMPT]
                    if shared:
                        link_size[lane] = link_add(
                            link_keys[lane],
                            link_values[lane],
                            link_size[lane],
                            link_clock[lane],
                            now,
                            work,
                            r,
                        )
                    else:
                        size = put(
                            keys, values, size, now + link[LATENCY] + work, KINDS * r + TRANSFERRED
                        )
                else:
                    free, event = answered(r, now, cache, client, pauses, facts)
                    size = put(keys, values, size, free, event)
        for lane in range(b_clock.shape[0]):
            if b_clock[lane, T_NEXT] > now:
                continue
            ended = advance(lane, now, now, back, back_times, back_facts, back_done, uncached)
            for i in range(ended):
                r = back_done[i]
                free, event = answered(r, now, cache, client, pauses, facts)
                size = put(keys, values, size, free, event)
        for sender in range(senders):
            while link_next(link_keys[sender], link_size[sender], link_clock[sender]) <= now:
                r = link_values[sender, 0]
                link_size[sender] = link_end(
                    link_keys[sender],
                    link_values[sender],
                    link_size[sender],
                    link_clock[sender],
                    now,
                )
                size = put(keys, values, size, now + link[LATENCY], KINDS * r + TRANSFERRED)

        waiting = 0
        while size > 0 and keys[0] <= now:
            r, kind = values[0] // KINDS, values[0] % KINDS
            size = drop(keys, values, size)
            if kind == FREE:
                flying -= 1
                continue
            if cache.on:
                if kind == SENT:
                    sent[waiting] = r
                    waiting += 1
                    continue
                if kind == LOADED:
                    # A lane takes a request from its arrival on; the client's is kept in `asked`.
                    times[r, ARRIVAL] = now
                    lane = lanes[r]
                    state[lane, OUTSTANDING] -= 1
                    enqueue(lane, r, front, facts)
                    clock[lane, T_NEXT] = min(clock[lane, T_NEXT], now)
                    continue
            if kind == FLOWED:
                times[r, ARRIVAL] = now
                lane = emptiest(front)
                enqueue(lane, r, front, facts)
                clock[lane, T_NEXT] = min(clock[lane, T_NEXT], now)
                continue
            back_times[r, ARRIVAL] = now
            # a decode that flows back needs further draws
            lane = choose(
                routing,
                back_number % back_lanes.shape[0],
                back_draws,
                now,
                b_clock,
                b_state,
                b_costs,
                b_moe,
                b_table,
                uncached,
                r,
            )
            back_number += 1
            back_lanes[r] = lane
            enqueue(lane, r, back, back_facts)
            b_clock[lane, T_NEXT] = min(b_clock[lane, T_NEXT], now)
        arrived = 0
        while True:
            if arrived < waiting:
                r = sent[arrived]
                arrived += 1
            elif following < n and flying < cap and scheduled[following] <= now:
                r = following
                following += 1
                flying += not refused[r]
            else:
                break
            times[r, ARRIVAL] = now
            if mixed.on:
                mixed.asked[r] = now
            if front.seen.shape[0] > 0:
                front.seen[r, DUE] += now
            elif back.seen.shape[0] > 0:
                back.seen[r, DUE] += now
            if refused[r]:
                continue
            if cache.on:
                settle(now, clock, state, phases, limits, costs, moe, table, cache)
            if mixed.on:
                lane, local = place(
                    r, number, now, routing, draws, front, back, facts, back_facts, mixed, cache
                )
                if local:
                    number += 1
                    lanes[r] = -1
                    back_lanes[r] = lane
                    back_times[r, ARRIVAL] = now
                    back_facts[r, READY] = 0
                    back_facts[r, CACHED] = facts[r, CACHED]
                    enqueue(lane, r, back, back_facts)
                    b_clock[lane, T_NEXT] = min(b_clock[lane, T_NEXT], now)
                    continue
            elif routing == LEAST_TTFT:
                tokens = facts[r, PROMPT] - facts[r, CACHED]
                lane, _ = quickest(number, now, tokens, front, facts)
            else:
                lane = choose(
                    routing,
                    number,
                    draws,
                    now,
                    clock,
                    state,
                    costs,
                    moe,
                    table,
                    cache,
                    r,
                )
            number += 1
            lanes[r] = lane
            if cache.on:
                ready = load(cache, lane, r, facts[r, PROMPT], limits[BLOCK], now)
                if ready > now:
                    cache.asked[r] = now
                    state[lane, OUTSTANDING] += 1
                    size = put(keys, values, size, ready, KINDS * r + LOADED)
                    continue
            enqueue(lane, r, front, facts)
            clock[lane, T_NEXT] = min(clock[lane, T_NEXT], now)

        if mixed.watermark > 0.0:
            for lane in range(b_clock.shape[0]):
                while True:
                    r, tokens = flow_out(
                        lane,
                        now,
                        front,
                        back,
                        times,
                        facts,
                        back_times,
                        back_facts,
                        mixed.watermark,
                        mixed.tpot,
                    )
                    if r < 0:
                        break
                    there = now + link[LATENCY] + link[FLOWING] * tokens
                    size = put(keys, values, size, there, KINDS * r + FLOWED)
            for lane in range(clock.shape[0]):
                while True:
                    r, tokens = flow_back(
                        lane,
                        now,
                        front,
                        back,
                        times,
                        facts,
                        back_times,
                        back_facts,
                        mixed.watermark,
                        mixed.tpot,
                    )
                    if r < 0:
                        break
                    there = now + link[LATENCY] + link[FLOWING] * tokens
                    size = put(keys, values, size, there, KINDS * r + TRANSFERRED)

        for lane in range(clock.shape[0]):
            if clock[lane, T_NEXT] <= now:
                advance(lane, now, math.inf, front, times, facts, done, cache)
        for lane in range(b_clock.shape[0]):
            if b_clock[lane, T_NEXT] <= now:
                advance(lane, now, math.inf, back, back_times, back_facts, back_done, uncached)
