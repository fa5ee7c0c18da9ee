"""What happens at a step boundary: departures, first messages, reserves used up, prompts done."""

from __future__ import annotations

from bestserve.arrays import Floats, Ints, Ints32
from bestserve.host.compiled import njit
from bestserve.simulator.block_cache import Cache, detach
from bestserve.simulator.heap import (
    FINISH,
    FIRST_MESSAGE,
    GROW,
    ITERATION_SHIFT,
    KIND_MASK,
    REQUEST_MASK,
    REQUEST_SHIFT,
    pack,
    push,
    remove,
)
from bestserve.simulator.kv_blocks import (
    blocks_at_end,
    grows_by_step,
    in_blocks,
    reserved_tokens,
)
from bestserve.simulator.layout import (
    AHEAD,
    BLOCK,
    BLOCKS,
    CONTEXT,
    DECODING,
    DRAFTS,
    EVENTS,
    FIRST,
    GENERATED,
    GROWING,
    GROWING_CONTEXT,
    HELD,
    ITERATION,
    JOINING,
    LAST,
    LEAVING,
    LEAVING_BLOCKS,
    LEFT,
    MADE,
    NOW,
    OUTPUT,
    PROMPT,
    PROMPT_TOKENS,
    QUEUED_TOKENS,
    RESERVE,
    SLOTS,
    STREAM,
    UNLIMITED,
    Pool,
)
from bestserve.simulator.reading import note_message


@njit(cache=True, inline=True)
def left_behind(lane: int, r: int, pool: Pool, facts: Ints32, cache: Cache) -> int:
    """Leave a request's full blocks to the prefix cache; return those that others hold still."""
    if not cache.on:
        return 0
    full = (facts[r, PROMPT] + facts[r, OUTPUT] - 1) // pool.limits[BLOCK]
    return detach(cache, lane, r, full, pool.clock[lane, NOW])


@njit(cache=True, inline=True)
def leave(lane: int, r: int, pool: Pool, facts: Ints32, cache: Cache) -> None:
    """Let a request that has ended leave its blocks, now or once a step is formed without it."""
    s, limits = pool.state[lane], pool.limits
    if limits[AHEAD] == 0:
        s[HELD] += left_behind(lane, r, pool, facts, cache)
        return
    pool.joins[lane, limits[SLOTS] + s[LEAVING]] = r
    s[LEAVING] += 1
    s[LEAVING_BLOCKS] += blocks_at_end(r, facts, pool.costs[RESERVE], limits[BLOCK])


@njit(cache=True, inline=True)
def leave_blocks(lane: int, pool: Pool, facts: Ints32, cache: Cache) -> None:
    """Let those who end leave their blocks to the prefix cache; they count as held still."""
    s = pool.state[lane]
    for i in range(s[LEFT], s[LEAVING]):
        r = pool.joins[lane, pool.limits[SLOTS] + i]
        still = left_behind(lane, r, pool, facts, cache)
        s[HELD] += still
        s[LEAVING_BLOCKS] -= still
    s[LEFT] = s[LEAVING]


@njit(cache=True, inline=True)
def let_go(lane: int, pool: Pool, facts: Ints32, cache: Cache) -> None:
    """All that has ended is known to the step formed next."""
    s = pool.state[lane]
    leave_blocks(lane, pool, facts, cache)
    s[LEAVING] = 0
    s[LEFT] = 0
    s[LEAVING_BLOCKS] = 0


@njit(cache=True, inline=True)
def fire_events(
    lane: int, pool: Pool, times: Floats, facts: Ints32, done: Ints, cache: Cache, ended: int
) -> int:
    """Process a boundary's events: departures, first messages, reserves used up.

    ended : how many requests ended since the call of `advance`; returned, with these
    """
    s, c = pool.state[lane], pool.clock[lane]
    block, reserve, drafts = pool.limits[BLOCK], pool.costs[RESERVE], pool.limits[DRAFTS]
    finite, grows = pool.limits[BLOCKS] < UNLIMITED, grows_by_step(pool)
    while s[EVENTS] > 0 and pool.heaps[lane, 0] >> ITERATION_SHIFT == s[ITERATION]:
        event = pool.heaps[lane, 0]
        r = (event >> REQUEST_SHIFT) & REQUEST_MASK
        kind = event & KIND_MASK
        s[EVENTS] = remove(pool.heaps, lane, s[EVENTS], 0)
        prompt = facts[r, PROMPT]
        output = facts[r, OUTPUT]
        if kind == FINISH:
            if times[r, FIRST] < 0.0:
                times[r, FIRST] = c[NOW]
            times[r, LAST] = c[NOW]
            s[DECODING] -= 1
            s[CONTEXT] -= prompt + output
            if finite:
                kept = reserved_tokens(prompt, output, facts[r, GENERATED], reserve)
                if grows and kept < prompt + output - 1:
                    context = prompt + output + drafts
                    s[GROWING] -= 1
                    s[GROWING_CONTEXT] -= context
                    pool.phases[lane, (context - s[ITERATION]) % block] -= 1
                else:
                    s[HELD] -= in_blocks(kept, block)
            leave(lane, r, pool, facts, cache)
            if done.size > 0:
                done[ended] = r
            ended += 1
        elif kind == FIRST_MESSAGE:
            times[r, FIRST] = c[NOW]
        else:
            kept = reserved_tokens(prompt, output, facts[r, GENERATED], reserve)
            context = prompt + facts[r, MADE] + drafts if drafts > 0 else kept + 1
            s[HELD] -= in_blocks(kept, block)
            s[GROWING] += 1
            s[GROWING_CONTEXT] += context
            pool.phases[lane, (context - s[ITERATION]) % block] += 1
    return ended


@njit(cache=True, inline=True)
def join(
    lane: int, pool: Pool, times: Floats, facts: Ints32, done: Ints, cache: Cache, ended: int
) -> int:
    """Let completed prompts decode from now on, or end with their first token; as `fire_events`."""
    s, c = pool.state[lane], pool.clock[lane]
    block, reserve = pool.limits[BLOCK], pool.costs[RESERVE]
    finite, grows = pool.limits[BLOCKS] < UNLIMITED, grows_by_step(pool)
    for i in range(s[JOINING]):
        r = pool.joins[lane, i]
        prompt = facts[r, PROMPT]
        output = facts[r, OUTPUT]
        generated = facts[r, GENERATED]
        whole = prompt + generated
        s[PROMPT_TOKENS] -= whole
        s[QUEUED_TOKENS] -= whole
        rest = output - generated - 1
        message = min(pool.limits[STREAM], output) - generated - 1
        if times[r, FIRST] < 0.0:
            if message <= 0:
                times[r, FIRST] = c[NOW]
            elif message < rest:
                event = pack(s[ITERATION] + message, r, FIRST_MESSAGE)
                s[EVENTS] = push(pool.heaps, lane, s[EVENTS], event)
        if pool.seen.shape[0] > 0:
            out = generated + 1
            if out % pool.limits[STREAM] == 0 or rest == 0:
                note_message(lane, r, out, c[NOW], pool)
        kept = reserved_tokens(prompt, output, generated, reserve) if finite else 0
        if rest == 0:
            times[r, LAST] = c[NOW]
            if finite:
                s[HELD] -= in_blocks(kept, block)
            leave(lane, r, pool, facts, cache)
            if done.size > 0:
                done[ended] = r
            ended += 1
            continue
        s[DECODING] += 1
        s[CONTEXT] += whole + 1
        s[EVENTS] = push(pool.heaps, lane, s[EVENTS], pack(s[ITERATION] + rest, r, FINISH))
        if grows:
            if kept == whole:
                s[HELD] -= in_blocks(kept, block)
                s[GROWING] += 1
                context = whole + 1 + pool.limits[DRAFTS]
                s[GROWING_CONTEXT] += context
                pool.phases[lane, (context - s[ITERATION]) % block] += 1
            elif kept < prompt + output - 1:
                event = pack(s[ITERATION] + kept - whole, r, GROW)
                s[EVENTS] = push(pool.heaps, lane, s[EVENTS], event)
    s[JOINING] = 0
    return ended
