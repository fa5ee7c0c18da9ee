"""Which replica an arriving request goes to.

Static rules do not look at the lanes, so that each lane can be simulated on its own; the others
see the lanes as they are when the request arrives, but for `reported_kv`, which knows what engines
told of their caches at the end of their last step: nothing of who waits, so that those who arrive
within a long step go to one lane, but for requests whose response has not begun (`ANSWERING`).
Routers that know of prefixes:

* `prefix_aware` looks at what engines report of their caches, `lag` later; `prefix_estimated` at
  its own record of what it sent where, which learns of no eviction. Both take the longest match
  among lanes that have no more than `BOUND` times the mean, or `SLACK` more than the least.
* `session_affine` sends a session, or a prefix group, to the same lane always; `prefix_hash`
  likewise, or to the next lane that is not so loaded (consistent hashing with bounded loads).
"""

from __future__ import annotations

import math

import numpy as np

from bestserve.arrays import Floats, Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.models.step.step_time_jit import A_SEQ, A_STEP, K
from bestserve.simulator.block_cache import (
    KEY,
    PROMPT_BLOCKS,
    Cache,
    remember,
    seen_depth,
    shared_blocks,
    trim,
)
from bestserve.simulator.kv_blocks import growing_blocks
from bestserve.simulator.layout import (
    ASKED,
    BLOCK,
    BLOCKS,
    CONTEXT,
    DECODING,
    GROWING,
    GROWING_CONTEXT,
    HELD,
    ITERATION,
    NOW,
    OUTSTANDING,
    PROMPT_TOKENS,
    QUEUED_TOKENS,
    REPORTED,
    STEPPING,
    UNLIMITED,
)
from bestserve.simulator.step import steps_to, tokens_cost

(
    RANDOM,
    ROUND_ROBIN,
    LEAST_OUTSTANDING,
    POWER_OF_TWO,
    LEAST_KV,
    REPORTED_KV,
    SESSION_AFFINE,
    PREFIX_HASH,
    PREFIX_AWARE,
    PREFIX_ESTIMATED,
    LEAST_TTFT,
) = range(11)
CODES = {
    "random": RANDOM,
    "round_robin": ROUND_ROBIN,
    "least_outstanding": LEAST_OUTSTANDING,
    "power_of_two": POWER_OF_TWO,
    "least_kv": LEAST_KV,
    "reported_kv": REPORTED_KV,
    "session_affine": SESSION_AFFINE,
    "prefix_hash": PREFIX_HASH,
    "prefix_aware": PREFIX_AWARE,
    "prefix_estimated": PREFIX_ESTIMATED,
    "least_ttft": LEAST_TTFT,
}
STATIC = ("random", "round_robin")
OF_PREFIXES = ("session_affine", "prefix_hash", "prefix_aware", "prefix_estimated")

BOUND = 1.25
"""Requests at a lane over the mean, up to which routers follow prefixes (KubeAI's default)."""

ANSWERING = 0.02
"""Time from a request to the head of its response, until which routers count it [s]: what HTTP and
tokeniser take of vLLM's front end, rounded."""

WORD = 1 << 32

SLACK = 8
"""Requests more than at the least loaded lane, up to which routers that look at caches follow them
too: engines batch, so that a few more cost little; assumed, for want of one rule of all routers."""


def assign(routing: str, draws: Floats, lanes: int, n: int) -> Ints32:
    """Return the lane of n requests under a static rule; `draws` float64[≥ n, 2] in [0, 1)."""
    if routing == "round_robin" or lanes == 1:
        return (np.arange(n) % lanes).astype(np.int32)
    return (draws[:n, 0] * lanes).astype(np.int32)


@njit(cache=True)
def kv_load(
    lane: int,
    now: float,
    clock: Floats,
    state: Ints,
    costs: Floats,
    moe: Floats,
    table: Floats,
) -> int:
    """Return prompt plus generated tokens of all requests at the lane, waiting ones included."""
    ended = steps_ended(lane, now, clock, state, costs, moe, table)
    load = state[lane, CONTEXT] + state[lane, QUEUED_TOKENS]
    return load + ended * state[lane, DECODING]


@njit(cache=True)
def reported_kv(
    lane: int,
    now: float,
    clock: Floats,
    state: Ints,
    costs: Floats,
    moe: Floats,
    table: Floats,
) -> int:
    """Return the KV tokens of who ran at the lane when its last step ended."""
    ended = steps_ended(lane, now, clock, state, costs, moe, table)
    if ended == 0:
        return state[lane, REPORTED]
    load = state[lane, CONTEXT] + state[lane, PROMPT_TOKENS]
    return load + ended * state[lane, DECODING]


@njit(cache=True)
def emptiest_as_told(
    number: int,
    now: float,
    clock: Floats,
    state: Ints,
    costs: Floats,
    moe: Floats,
    table: Floats,
) -> int:
    """Return the lane that told the least KV in use, of those not sent a request just now."""
    lanes = clock.shape[0]
    best = -1
    least = 0
    waits = False
    for i in range(lanes):
        lane = (number + i) % lanes
        load = reported_kv(lane, now, clock, state, costs, moe, table)
        answering = now - clock[lane, ASKED] < ANSWERING
        if best < 0 or (waits and not answering) or (waits == answering and load < least):
            best, least, waits = lane, load, answering
    clock[best, ASKED] = now
    return best


@njit(cache=True)
def steps_ended(
    lane: int,
    now: float,
    clock: Floats,
    state: Ints,
    costs: Floats,
    moe: Floats,
    table: Floats,
) -> int:
    """Return the decode steps of a jump under way that ended by now; 0 where there is none."""
    gap = now - clock[lane, NOW]
    if state[lane, DECODING] == 0 or state[lane, STEPPING] != 0 or gap <= 0.0:
        return 0
    n, first, growth = steps_begun(lane, gap, state, costs, moe, table)
    if n * first + growth * (0.5 * n * (n - 1)) > gap:
        n -= 1
    return n


@njit(cache=True)
def steps_begun(
    lane: int, gap: float, state: Ints, costs: Floats, moe: Floats, table: Floats
) -> tuple[int, float, float]:
    """Return the decode steps begun in `gap` [s] of a jump, the first's duration, their growth."""
    decoding = state[lane, DECODING]
    first = (
        costs[A_STEP]
        + costs[A_SEQ] * decoding
        + tokens_cost(decoding, table, costs, moe)
        + costs[K] * state[lane, CONTEXT]
    )
    growth = costs[K] * decoding
    return steps_to(gap, first, growth), first, growth


@njit(cache=True)
def settle(
    now: float,
    clock: Floats,
    state: Ints,
    phases: Ints,
    limits: Ints,
    costs: Floats,
    moe: Floats,
    table: Floats,
    cache: Cache,
) -> None:
    """Give up the cached blocks that steps begun by now have taken, also within jumps."""
    block, blocks = limits[BLOCK], limits[BLOCKS]
    if blocks >= UNLIMITED:
        return
    for lane in range(clock.shape[0]):
        gap = now - clock[lane, NOW]
        growing = state[lane, GROWING]
        if growing == 0 or state[lane, STEPPING] != 0 or gap <= 0.0:
            continue
        begun, _, _ = steps_begun(lane, gap, state, costs, moe, table)
        steps = begun - 1
        context = state[lane, GROWING_CONTEXT] + steps * growing
        taken = growing_blocks(context, phases, lane, state[lane, ITERATION] + steps, block)
        trim(cache, 0, lane, blocks - state[lane, HELD] - taken, now)


@njit(cache=True)
def choose(
    routing: int,
    number: int,
    draws: Floats,
    now: float,
    clock: Floats,
    state: Ints,
    costs: Floats,
    moe: Floats,
    table: Floats,
    cache: Cache,
    request: int,
) -> int:
    """Return the lane for arrival `number` (0, 1, …), a request, at time `now` [s].

    Equals are taken in turn, starting with lane `number` mod lanes. Power of two choices picks
    two different lanes at random and takes the one with fewer requests, the first on a tie.
    """
    lanes = clock.shape[0]
    if lanes == 1:
        return 0
    if routing == RANDOM:
        return int(draws[number, 0] * lanes)
    if routing == ROUND_ROBIN:
        return number % lanes
    if routing == POWER_OF_TWO:
        one = int(draws[number, 0] * lanes)
        other = int(draws[number, 1] * (lanes - 1))
        if other >= one:
            other += 1
        return other if state[other, OUTSTANDING] < state[one, OUTSTANDING] else one
    if cache.on and routing >= SESSION_AFFINE:
        return choose_by_prefix(routing, number, now, state, cache, request)
    if routing == REPORTED_KV:
        return emptiest_as_told(number, now, clock, state, costs, moe, table)
    best = -1
    least = 0
    for i in range(lanes):
        lane = (number + i) % lanes
        if routing == LEAST_KV:
            load = kv_load(lane, now, clock, state, costs, moe, table)
        else:
            load = state[lane, OUTSTANDING]
        if best < 0 or load < least:
            best, least = lane, load
    return best


@njit(cache=True)
def choose_by_prefix(
    routing: int, number: int, now: float, state: Ints, cache: Cache, request: int
) -> int:
    """Return the lane for a request by its session, its prefix group or what caches hold."""
    lanes = state.shape[0]
    home = affine(cache.plan[request, KEY], lanes)
    if routing == SESSION_AFFINE:
        return home
    total, least = 1, state[0, OUTSTANDING]
    for lane in range(lanes):
        total += state[lane, OUTSTANDING]
        least = min(least, state[lane, OUTSTANDING])
    most = math.ceil(BOUND * total / lanes)
    if routing == PREFIX_HASH:
        for i in range(lanes):
            lane = (home + i) % lanes
            if state[lane, OUTSTANDING] < most:
                return lane
    most = max(most, least + SLACK)
    best = -1
    longest = -1
    for i in range(lanes):
        lane = (number + i) % lanes
        if state[lane, OUTSTANDING] >= most:
            continue
        match = seen_depth(cache, lane, request, now)
        if match > longest or (
            match == longest and state[lane, OUTSTANDING] < state[best, OUTSTANDING]
        ):
            best, longest = lane, match
    if routing == PREFIX_ESTIMATED:
        own = cache.plan[request, PROMPT_BLOCKS] - shared_blocks(cache, request)
        remember(cache, cache.record, best, request, own, now)
    return best


@njit(cache=True)
def affine(key: int, lanes: int) -> int:
    """Return the lane of a key: Knuth's multiplicative hash, in 32 bits."""
    return (key * 2654435761) % WORD * lanes // WORD
