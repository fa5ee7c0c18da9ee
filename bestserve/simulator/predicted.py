"""Least predicted TTFT: what a router can know of how long a lane will take for a prompt.

The tokens that wait there, the decodes beside them and the step time: full steps for all tokens but
the last part, after what is left of the step under way. The attention of the prompt itself counts,
that of those before it does not, nor does a wait for a slot or for KV memory, nor what drafts.
"""

from __future__ import annotations

import math

from bestserve.arrays import Ints32
from bestserve.host.compiled import njit
from bestserve.models.step.step_time_jit import A_SEQ, A_STEP, PHI, A, K
from bestserve.simulator.layout import (
    BUDGET,
    CONTEXT,
    DECODING,
    GENERATED,
    JOINING,
    MOVED_TOKENS,
    NOW,
    PROMPT,
    QUEUED_TOKENS,
    RIDES,
    ROOM,
    SPLIT,
    SPLIT_DONE,
    STEPPING,
    T_END,
    Pool,
)
from bestserve.simulator.routing import steps_begun
from bestserve.simulator.step import tokens_cost

EQUAL = 1e-9
"""Predictions no further apart are equal: rounding does not decide between lanes alike [s]."""


@njit(cache=True)
def predicted_ttft(lane: int, now: float, tokens: int, pool: Pool, facts: Ints32) -> float:
    """Return how long a prompt with so many tokens to compute would take at a lane [s].

    Infinite where decodes leave it no room.
    """
    s, c, limits, costs = pool.state[lane], pool.clock[lane], pool.limits, pool.costs
    beside = pool.widths[s[DECODING]] if limits[RIDES] != 0 else 0
    room = min(limits[BUDGET] - beside, limits[ROOM])
    if room < 1:
        return math.inf
    work = tokens + s[QUEUED_TOKENS] - s[MOVED_TOKENS]
    if s[SPLIT] >= 0:
        work -= s[SPLIT_DONE]
    for i in range(s[JOINING]):
        r = pool.joins[lane, i]
        work -= facts[r, PROMPT] + facts[r, GENERATED]
    wait, beside_tokens = 0.0, s[CONTEXT]
    if s[STEPPING] != 0:
        wait = c[T_END] - now
    elif s[DECODING] > 0 and now > c[NOW]:
        # within a jump over decode steps: until the one under way ends
        gap = now - c[NOW]
        n, first, growth = steps_begun(lane, gap, pool.state, costs, pool.moe, pool.table)
        wait = max(n * first + growth * (0.5 * n * (n - 1)) - gap, 0.0)
        ended = n - 1 if wait > 0.0 else n
        beside_tokens += ended * s[DECODING]
    full = (work - 1) // room
    rest = work - full * room
    fixed = costs[A_STEP] + costs[A_SEQ] * (beside + 1)
    context = costs[K] * beside_tokens if limits[RIDES] != 0 else 0.0
    whole = tokens_cost(room + beside, pool.table, costs, pool.moe) + context
    last = tokens_cost(rest + beside, pool.table, costs, pool.moe) + context
    own = costs[A] * (0.5 * tokens * tokens)
    return wait + (full + 1) * fixed + costs[PHI] * (full * whole + last + own)


@njit(cache=True)
def quickest(number: int, now: float, tokens: int, pool: Pool, facts: Ints32) -> tuple[int, float]:
    """Return the lane of a pool with the least predicted TTFT, and that [s].

    Equals (`EQUAL`) are taken in turn, as in `choose`.
    """
    lanes = pool.clock.shape[0]
    best = number % lanes
    least = math.inf
    for i in range(lanes):
        lane = (number + i) % lanes
        time = predicted_ttft(lane, now, tokens, pool, facts)
        if time < least - EQUAL:
            best, least = lane, time
    return best, least
