"""Speculative decoding in a lane: what decodes gain in a step, drawn request by request.

Every gain is a function of the request and of how many tokens it has made, so that a run can be
repeated at another rate, and a request that is evicted goes on as it would have. In such pools
events are keyed by the tokens that are left until they happen, in place of iterations.
"""

from __future__ import annotations

from bestserve.arrays import Floats, Ints32
from bestserve.host.compiled import njit
from bestserve.simulator.heap import (
    FINISH,
    ITERATION_SHIFT,
    KIND_MASK,
    REQUEST_MASK,
    REQUEST_SHIFT,
    rebuild,
)
from bestserve.simulator.kv_blocks import grows_by_step, reserved_tokens
from bestserve.simulator.layout import (
    BLOCK,
    CLASS,
    CONTEXT,
    DECODING,
    DRAFTS,
    DRAW,
    EVENTS,
    GAIN,
    GENERATED,
    GROWING_CONTEXT,
    MADE,
    OUTPUT,
    PROMPT,
    RESERVE,
    TAKEN,
    Pool,
)

WORD = 1 << 32
MASK = WORD - 1


@njit(cache=True)
def uniform(start: int, count: int) -> float:
    """Return a number in 0 … 1 that belongs to both: a Weyl sequence, mixed.

    Mixing by two multiplications below 2³¹ (TheIronBorn, in github.com/skeeto/hash-prospector), so
    that products of 32-bit numbers stay within 63 bits.
    """
    x = (start + count * 2654435769) & MASK
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & MASK
    return (x ^ (x >> 15)) / WORD


@njit(cache=True)
def gained(r: int, made: int, drafts: int, facts: Ints32, accept: Floats) -> int:
    """Return the tokens that a request which has made so many gains in a step with `drafts`."""
    u = uniform(facts[r, DRAW], made)
    gain = 0
    while gain < drafts and u < accept[facts[r, CLASS], gain]:
        gain += 1
    return gain + 1


@njit(cache=True)
def verify(lane: int, pool: Pool, facts: Ints32) -> None:
    """End a step in which decodes took part: draw what each gains, at most what it lacks."""
    s, heaps, block = pool.state[lane], pool.heaps, pool.limits[BLOCK]
    if s[DECODING] == 0:
        return
    drafts = pool.widths[s[DECODING]] // s[DECODING] - 1
    grows = grows_by_step(pool)
    for i in range(s[EVENTS]):
        if heaps[lane, i] & KIND_MASK != FINISH:
            continue
        r = (heaps[lane, i] >> REQUEST_SHIFT) & REQUEST_MASK
        left = heaps[lane, i] >> ITERATION_SHIFT
        prompt, output = facts[r, PROMPT], facts[r, OUTPUT]
        made = output - left
        gain = min(gained(r, made, drafts, facts, pool.accept), left)
        facts[r, GAIN] = gain
        facts[r, MADE] = made + gain
        facts[r, TAKEN] += 1
        s[CONTEXT] += gain
        kept = reserved_tokens(prompt, output, facts[r, GENERATED], pool.costs[RESERVE])
        if grows and prompt + made > kept:
            context = prompt + made + pool.limits[DRAFTS]
            s[GROWING_CONTEXT] += gain
            pool.phases[lane, context % block] -= 1
            pool.phases[lane, (context + gain) % block] += 1
    for i in range(s[EVENTS]):
        r = (heaps[lane, i] >> REQUEST_SHIFT) & REQUEST_MASK
        gain = min(int(facts[r, GAIN]), heaps[lane, i] >> ITERATION_SHIFT)
        heaps[lane, i] -= gain << ITERATION_SHIFT
    rebuild(heaps, lane, s[EVENTS])
