"""Who is in the next step: eviction where its KV does not fit, else admission in order."""

from __future__ import annotations

from bestserve.arrays import Floats, Ints32
from bestserve.host.compiled import njit
from bestserve.simulator.block_cache import Cache, attach, detach, in_use, lookup
from bestserve.simulator.departures import left_behind
from bestserve.simulator.heap import (
    FINISH,
    FIRST_MESSAGE,
    GROW,
    forget,
    pack,
    push,
)
from bestserve.simulator.kv_blocks import (
    blocks_at_end,
    give_room,
    growing_blocks,
    grows_by_step,
    in_blocks,
    reserved_tokens,
    takes_by_chunk,
)
from bestserve.simulator.layout import (
    ADMISSIONS,
    ADMITTED,
    ARRIVAL,
    BLOCK,
    BLOCKS,
    BUDGET,
    CACHED,
    CONTEXT,
    DECODING,
    DRAFTS,
    EVENTS,
    EVICTED,
    EVICTIONS,
    FIRST,
    FORMED,
    GENERATED,
    GROWING,
    GROWING_CONTEXT,
    HEAD,
    HELD,
    ITERATION,
    JOINING,
    LEAVING,
    LEAVING_BLOCKS,
    MOST_PROMPTS,
    MOVED_TOKENS,
    NEXT,
    NOW,
    OUTPUT,
    PROMPT,
    PROMPT_TOKENS,
    QUEUED_TOKENS,
    READY,
    RESERVE,
    RIDES,
    ROOM,
    SLOTS,
    SPLIT,
    SPLIT_DONE,
    SPLITS,
    START,
    STREAM,
    TAIL,
    UNLIMITED,
    Pool,
)
from bestserve.simulator.ranks import goes_first, insert, last_decode


@njit(cache=True, inline=True)
def blocks_coming(lane: int, pool: Pool, facts: Ints32) -> int:
    """Return the blocks that the next part of the prompt under way takes, if it takes any."""
    s, limits = pool.state[lane], pool.limits
    if s[SPLIT] < 0 or not takes_by_chunk(pool):
        return 0
    block = limits[BLOCK]
    left = limits[BUDGET] - pool.widths[s[DECODING]] if limits[RIDES] != 0 else limits[BUDGET]
    part = facts[s[SPLIT], PROMPT] + facts[s[SPLIT], GENERATED] - s[SPLIT_DONE]
    part = max(min(part, left, limits[ROOM]), 0)
    return in_blocks(s[SPLIT_DONE] + part, block) - in_blocks(s[SPLIT_DONE], block)


@njit(cache=True, inline=True)
def take_off(lane: int, r: int, finish: int, pool: Pool, facts: Ints32) -> int:
    """Take a decode off its lane; return its tokens, prompt and those out.

    finish : the iteration in which it would end
    """
    s, block = pool.state[lane], pool.limits[BLOCK]
    s[EVENTS] = forget(pool.heaps, lane, s[EVENTS], r)
    prompt, output = facts[r, PROMPT], facts[r, OUTPUT]
    kept = reserved_tokens(prompt, output, facts[r, GENERATED], pool.costs[RESERVE])
    tokens = prompt + output - (finish - s[ITERATION])
    if tokens > kept:
        context = tokens + pool.limits[DRAFTS]
        s[GROWING] -= 1
        s[GROWING_CONTEXT] -= context
        pool.phases[lane, (context - s[ITERATION]) % block] -= 1
    else:
        s[HELD] -= in_blocks(kept, block)
    s[DECODING] -= 1
    s[CONTEXT] -= tokens
    return tokens


@njit(cache=True, inline=True)
def evict(lane: int, pool: Pool, facts: Ints32, coming: int, cache: Cache) -> bool:
    """Evict the youngest until the next step's KV fits; tell whether any was.

    coming : blocks that the next part of the prompt under way takes
    """
    s, c = pool.state[lane], pool.clock[lane]
    limits, reserve = pool.limits, pool.costs[RESERVE]
    block, by_chunk, evicted = limits[BLOCK], takes_by_chunk(pool), False
    usable = limits[BLOCKS] - s[LEAVING_BLOCKS]
    crowded = s[GROWING] + coming > 0 and (
        s[GROWING_CONTEXT] + s[GROWING] * (block - 1) > (usable - s[HELD] - coming) * block
    )
    while crowded and (
        growing_blocks(s[GROWING_CONTEXT], pool.phases, lane, s[ITERATION], block)
        + s[HELD]
        + coming
        > usable
    ):
        evicted = True
        youngest, finish = last_decode(lane, pool, facts)
        if s[SPLIT] >= 0 and (youngest < 0 or goes_first(s[SPLIT], youngest, pool, facts)):
            youngest = s[SPLIT]
            s[SPLIT] = -1
            prompt, generated = facts[youngest, PROMPT], facts[youngest, GENERATED]
            tokens = prompt + generated
            kept = reserved_tokens(prompt, facts[youngest, OUTPUT], generated, reserve)
            s[HELD] -= in_blocks(s[SPLIT_DONE] if by_chunk else kept, block)
            coming = 0
            s[PROMPT_TOKENS] -= tokens
            s[QUEUED_TOKENS] -= tokens  # counted until processed; it queues again below
            computed = s[SPLIT_DONE]
        else:
            leaver = -1
            for i in range(s[LEAVING]):
                r = pool.joins[lane, limits[SLOTS] + i]
                if facts[r, ADMITTED] > facts[youngest, ADMITTED]:
                    youngest, leaver = r, i
            if leaver >= 0:
                # It ends with the step under way: only its blocks go.
                gone = blocks_at_end(youngest, facts, reserve, block)
                usable += gone
                s[LEAVING_BLOCKS] -= gone
                s[LEAVING] -= 1
                for i in range(limits[SLOTS] + leaver, limits[SLOTS] + s[LEAVING]):
                    pool.joins[lane, i] = pool.joins[lane, i + 1]
                s[HELD] += left_behind(lane, youngest, pool, facts, cache)
                facts[youngest, EVICTIONS] += 1
                s[EVICTED] += 1
                continue
            tokens = take_off(lane, youngest, finish, pool, facts)
            facts[youngest, GENERATED] = tokens - facts[youngest, PROMPT]
            computed = tokens - 1
        if cache.on:
            s[HELD] += detach(cache, lane, youngest, computed // block, c[NOW])
        facts[youngest, EVICTIONS] += 1
        facts[youngest, READY] = 0
        if pool.ranks.shape[0] > 0:
            insert(lane, youngest, pool, facts)
        else:
            facts[youngest, NEXT] = s[HEAD]
            if s[HEAD] < 0:
                s[TAIL] = youngest
            s[HEAD] = youngest
        s[QUEUED_TOKENS] += tokens
        s[EVICTED] += 1
    return evicted


@njit(cache=True)
def tokens_taken(splits: bool, remaining: int, room: int, prompts: int) -> int:
    """Return how many of a prompt's `remaining` tokens a step with this room takes [tokens].

    prompts : already in the step; the first whole one goes whatever its length
    """
    if splits:
        return min(remaining, room)
    return remaining if remaining <= room or prompts == 0 else 0


@njit(cache=True, inline=True)
def decode_at_once(lane: int, r: int, kept: int, pool: Pool, times: Floats, facts: Ints32) -> None:
    """Let a request decode whose prompt was processed elsewhere; kept : tokens it takes now."""
    s, block, grows = pool.state[lane], pool.limits[BLOCK], grows_by_step(pool)
    whole = facts[r, PROMPT] + facts[r, GENERATED]
    # The prefill instance has sent the first token already.
    s[DECODING] += 1
    s[CONTEXT] += whole + 1
    s[QUEUED_TOKENS] -= whole
    s[MOVED_TOKENS] -= whole
    rest = facts[r, OUTPUT] - 1 - facts[r, GENERATED]
    message = min(pool.limits[STREAM] - 1, rest)
    s[EVENTS] = push(pool.heaps, lane, s[EVENTS], pack(s[ITERATION] + rest, r, FINISH))
    if times[r, FIRST] < 0.0 and 0 < message < rest:
        event = pack(s[ITERATION] + message, r, FIRST_MESSAGE)
        s[EVENTS] = push(pool.heaps, lane, s[EVENTS], event)
    if not grows or kept > whole:
        s[HELD] += in_blocks(kept, block)
        if grows and kept < facts[r, PROMPT] + facts[r, OUTPUT] - 1:
            event = pack(s[ITERATION] + kept - whole, r, GROW)
            s[EVENTS] = push(pool.heaps, lane, s[EVENTS], event)
    else:
        context = whole + 1 + pool.limits[DRAFTS]
        s[GROWING] += 1
        s[GROWING_CONTEXT] += context
        pool.phases[lane, (context - s[ITERATION]) % block] += 1


@njit(cache=True, inline=True)
def admit(
    lane: int, pool: Pool, times: Floats, facts: Ints32, coming: int, cache: Cache
) -> tuple[int, int, float, bool]:
    """Fill a step: the prompt under way, then the queue in order, as far as the room goes.

    coming : as of `evict`. Returns prompts in the step, their tokens and attention pairs, and
    whether the head of the queue is still to come
    """
    s, c = pool.state[lane], pool.clock[lane]
    limits, reserve = pool.limits, pool.costs[RESERVE]
    block, room, rides = limits[BLOCK], limits[ROOM], limits[RIDES] != 0
    finite, by_chunk = limits[BLOCKS] < UNLIMITED, takes_by_chunk(pool)
    usable = limits[BLOCKS] - s[LEAVING_BLOCKS]
    prompts = 0
    tokens = 0
    pairs = 0.0
    waits = False
    left = limits[BUDGET] - pool.widths[s[DECODING]] if rides else limits[BUDGET]
    if s[SPLIT] >= 0:
        r = s[SPLIT]
        whole = facts[r, PROMPT] + facts[r, GENERATED]
        take = min(whole - s[SPLIT_DONE], left, room)
        if take > 0:
            pairs += take * (s[SPLIT_DONE] + 0.5 * take)
            tokens += take
            left -= take
            prompts += 1
            s[HELD] += coming
            s[SPLIT_DONE] += take
            if s[SPLIT_DONE] == whole:
                pool.joins[lane, s[JOINING]] = r
                s[JOINING] += 1
                s[SPLIT] = -1
    taken = s[DECODING] + s[LEAVING]
    while s[HEAD] >= 0 and s[SPLIT] < 0 and taken + s[JOINING] < limits[SLOTS]:
        r = s[HEAD]
        if times[r, ARRIVAL] > c[FORMED]:
            waits = True
            break
        whole = facts[r, PROMPT] + facts[r, GENERATED]
        ready = facts[r, READY] != 0
        remaining = 0
        take = 0
        width = 0
        if ready:
            width = pool.widths[s[DECODING] + 1] - pool.widths[s[DECODING]]
            if rides and left < width:
                break
        else:
            if cache.on:
                give_room(lane, s[GROWING_CONTEXT], s[ITERATION], pool, cache)
                facts[r, CACHED] = lookup(cache, lane, r, whole, block)
            remaining = whole - facts[r, CACHED]
            take = tokens_taken(limits[SPLITS] != 0, remaining, min(left, room - tokens), prompts)
            if take == 0 or prompts >= limits[MOST_PROMPTS]:
                break
        kept = 0
        need = 0
        in_common = 0
        if finite:
            kept = reserved_tokens(facts[r, PROMPT], facts[r, OUTPUT], facts[r, GENERATED], reserve)
            need = in_blocks(kept, block)
            # A request that decodes at once needs the block of its next token too.
            ask = need
            if ready and kept <= whole:
                ask = in_blocks(whole + 1 + limits[DRAFTS], block)
            if cache.on and not ready:
                in_common = in_use(cache, lane, r)
            held = s[HELD] + ask - in_common
            if (
                s[GROWING_CONTEXT] + s[GROWING] * (block - 1) > (usable - held) * block
                and growing_blocks(s[GROWING_CONTEXT], pool.phases, lane, s[ITERATION], block)
                + held
                > usable
            ):
                break
        s[HEAD] = facts[r, NEXT]
        s[ADMISSIONS] += 1
        facts[r, ADMITTED] = s[ADMISSIONS]
        if times[r, START] < 0.0:
            times[r, START] = c[NOW]
        if ready:
            if rides:
                left -= width
            taken += 1
            decode_at_once(lane, r, kept, pool, times, facts)
            continue
        if by_chunk and take < remaining:
            need = in_blocks(facts[r, CACHED] + take, block)
        s[HELD] += need - in_common
        if cache.on:
            attach(cache, lane, r, facts[r, CACHED], c[NOW])
        s[PROMPT_TOKENS] += whole
        pairs += take * (facts[r, CACHED] + 0.5 * take)
        tokens += take
        left -= take
        prompts += 1
        if take < remaining:
            s[SPLIT] = r
            s[SPLIT_DONE] = facts[r, CACHED] + take
        else:
            pool.joins[lane, s[JOINING]] = r
            s[JOINING] += 1
    return prompts, tokens, pairs, waits
