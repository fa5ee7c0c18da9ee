"""Flowing decode (TaiChi): decodes with slack leave crowded decode lanes and come back in time.

At a boundary of a decode lane whose KV cache is fuller than the watermark, the decode with the
most slack moves to a prefill lane, and so on until it no longer is. On prefill lanes, where chunks
are long, it decodes more slowly; at the first boundary at which its TPOT has come near the
objective it moves back, if a decode lane has room below the watermark. Each move takes the
transfer of its KV, alone on the link. Lanes take every step one by one for it.

Shares of the objective at which decodes move are ours: public summaries of "Prefill-Decode
Aggregation or Disaggregation?" (arXiv 2508.01989) give the rule and no numbers.
"""

from __future__ import annotations

from bestserve.arrays import Floats, Ints32
from bestserve.host.compiled import njit
from bestserve.simulator.admission import take_off
from bestserve.simulator.heap import (
    FINISH,
    ITERATION_SHIFT,
    KIND_MASK,
    REQUEST_MASK,
    REQUEST_SHIFT,
)
from bestserve.simulator.kv_blocks import growing_blocks, in_blocks
from bestserve.simulator.layout import (
    BLOCK,
    BLOCKS,
    DECODING,
    EVENTS,
    FIRST,
    GENERATED,
    GROWING_CONTEXT,
    HELD,
    ITERATION,
    NOW,
    OUTPUT,
    OUTSTANDING,
    PROMPT,
    READY,
    STEPPING,
    Pool,
)

LEAVE = 0.75
"""TPOT so far over the objective up to which a decode may leave."""

RETURN = 0.95
"""TPOT so far over the objective from which it comes back."""

SPARE = 2
"""Times its blocks that a lane must have free to take a decode: others are on their way to it."""


@njit(cache=True)
def free_blocks(lane: int, pool: Pool) -> int:
    """Return the KV blocks of a lane that nobody holds in its next step."""
    s, block = pool.state[lane], pool.limits[BLOCK]
    grown = growing_blocks(s[GROWING_CONTEXT], pool.phases, lane, s[ITERATION], block)
    return pool.limits[BLOCKS] - s[HELD] - grown


@njit(cache=True)
def emptiest(pool: Pool) -> int:
    """Return the lane of a pool with the most free KV blocks, the first of equals."""
    best = 0
    most = free_blocks(0, pool)
    for lane in range(1, pool.clock.shape[0]):
        free = free_blocks(lane, pool)
        if free > most:
            best, most = lane, free
    return best


@njit(cache=True)
def at_boundary(lane: int, now: float, pool: Pool) -> bool:
    """Whether a lane that decodes is between two steps."""
    s = pool.state[lane]
    return s[STEPPING] == 0 and s[DECODING] > 0 and pool.clock[lane, NOW] == now


@njit(cache=True)
def outermost(
    lane: int,
    now: float,
    pool: Pool,
    facts: Ints32,
    firsts: Floats,
    others: Floats,
    tpot: float,
    slowest: bool,
) -> tuple[int, int, float]:
    """Return the decode of a lane with the largest, or least, TPOT so far over the objective.

    firsts, others : times of the request, the first of which has its first token if it is there [s]
    Returns −1 as request where nothing decodes, then when it ends [iteration], and that share [1];
    of equals the one that came first.
    """
    s = pool.state[lane]
    found, ends = -1, 0
    share = 0.0
    for i in range(s[EVENTS]):
        event = pool.heaps[lane, i]
        if event & KIND_MASK != FINISH:
            continue
        r = (event >> REQUEST_SHIFT) & REQUEST_MASK
        finish = event >> ITERATION_SHIFT
        steps = facts[r, OUTPUT] - (finish - s[ITERATION]) - 1
        if steps < 1:
            continue
        first = firsts[r, FIRST] if firsts[r, FIRST] >= 0.0 else others[r, FIRST]
        its = (now - first) / (steps * tpot)
        sooner = its > share if slowest else its < share
        if found < 0 or sooner or (its == share and r < found):
            found, ends, share = r, finish, its
    return found, ends, share


@njit(cache=True)
def move(
    lane: int, r: int, finish: int, pool: Pool, own: Ints32, others: Ints32, output: int
) -> int:
    """Take a decode off a lane for one of the other pool, whose facts are `others`; its tokens."""
    tokens = take_off(lane, r, finish, pool, own)
    pool.state[lane, OUTSTANDING] -= 1
    others[r, OUTPUT] = output
    others[r, READY] = 1
    others[r, GENERATED] = tokens - own[r, PROMPT] - 1
    return tokens


@njit(cache=True)
def flow_out(
    lane: int,
    now: float,
    front: Pool,
    back: Pool,
    times: Floats,
    facts: Ints32,
    back_times: Floats,
    back_facts: Ints32,
    watermark: float,
    tpot: float,
) -> tuple[int, int]:
    """Take the decode with the most slack off a decode lane above the watermark; −1: none.

    Returns the request and its tokens.
    """
    if not at_boundary(lane, now, back):
        return -1, 0
    if free_blocks(lane, back) >= (1.0 - watermark) * back.limits[BLOCKS]:
        return -1, 0
    r, finish, share = outermost(lane, now, back, back_facts, back_times, times, tpot, False)
    if r < 0 or share > LEAVE:
        return -1, 0
    need = in_blocks(back_facts[r, PROMPT] + back_facts[r, OUTPUT], front.limits[BLOCK])
    if free_blocks(emptiest(front), front) < SPARE * need:
        return -1, 0
    return r, move(lane, r, finish, back, back_facts, facts, back_facts[r, OUTPUT])


@njit(cache=True)
def flow_back(
    lane: int,
    now: float,
    front: Pool,
    back: Pool,
    times: Floats,
    facts: Ints32,
    back_times: Floats,
    back_facts: Ints32,
    watermark: float,
    tpot: float,
) -> tuple[int, int]:
    """Take the decode nearest to missing its objective off a prefill lane; as `flow_out`."""
    if not at_boundary(lane, now, front):
        return -1, 0
    r, finish, share = outermost(lane, now, front, facts, back_times, times, tpot, True)
    if r < 0 or share < RETURN:
        return -1, 0
    need = in_blocks(facts[r, PROMPT] + facts[r, OUTPUT], back.limits[BLOCK])
    room = free_blocks(emptiest(back), back) - (1.0 - watermark) * back.limits[BLOCKS]
    if room < need:
        return -1, 0
    if back_times[r, FIRST] < 0.0:
        back_times[r, FIRST] = times[r, FIRST]
    return r, move(lane, r, finish, front, facts, back_facts, facts[r, OUTPUT])
